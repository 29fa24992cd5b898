"""The load balancer before three masters: haproxy in a container of its own."""

from lab.cluster import podman
from lab.cluster.layout import API_PORT, Cluster, identity
from lab.cluster.processes import copy_tree
from lab.cluster.template import Template

_CONFIGURATION = """\
global
    maxconn 2000

defaults
    mode tcp
    timeout connect 2s
    # Watches are quiet for long.
    timeout client 1h
    timeout server 1h
    timeout check 2s

frontend api
    bind :{port}
    default_backend masters

backend masters
    balance roundrobin
    option httpchk GET /readyz
    default-server check check-ssl verify none inter 1s fall 2 rise 1
    default-server on-marked-down shutdown-sessions
{servers}
"""


def configuration(cluster: Cluster) -> str:
    """Text of haproxy.cfg: TCP to every master whose API server says that it is ready."""
    servers = "\n".join(f"    server {n.name} {n.address}:{API_PORT}" for n in cluster.masters)
    return _CONFIGURATION.format(port=API_PORT, servers=servers)


def start(cluster: Cluster, template: Template, network: str) -> None:
    """Start the load balancer when the cluster has one."""
    for node in (node for node in cluster.nodes if node.role == "balancer"):
        root = cluster.root(node)
        # Never written to, so it can share the template's files.
        copy_tree(template.root, root, linked=True)
        settings = cluster.folder / "haproxy.cfg"
        settings.write_text(configuration(cluster), encoding="utf-8")
        podman.run(
            cluster.container(node),
            identity(cluster.name),
            [
                *(f"--network={network}", f"--ip={node.address}", f"--hostname={node.name}"),
                *("--read-only", f"--volume={settings}:/etc/haproxy/haproxy.cfg:ro"),
            ],
            root,
            ["/usr/sbin/haproxy", "-W", "-db", "-f", "/etc/haproxy/haproxy.cfg"],
        )
