# Makes a restored machine a machine of its own. Perl, because every Debian has it and some
# machines are to have no Python. Arguments: seconds since the epoch, host name. Standard input:
# 64 random bytes.
use strict;
use warnings;

my ($now, $name) = @ARGV;
binmode STDIN;
read(STDIN, my $seed, 64) == 64 or die "no random seed\n";

# The frozen random state is the same in every copy. RNDADDENTROPY, then RNDRESEEDCRNG.
open my $random, '>', '/dev/urandom' or die "/dev/urandom: $!\n";
ioctl($random, 0x40085203, pack('ii', 512, 64) . $seed) or die "RNDADDENTROPY: $!\n";
ioctl($random, 0x5207, 0);    # Kernels before 4.14 lack it and reseed by themselves.

# clock_settime(CLOCK_REALTIME)
my $time = pack('qq', int $now, ($now - int $now) * 1e9);
syscall(227, 0, $time) == 0 or die "clock_settime: $!\n";

# Setting the clock marks it as not synchronised. It was just set from the host's, and no time
# server answers in here, so this stands in for one: adjtimex(ADJ_MAXERROR | ADJ_ESTERROR |
# ADJ_STATUS) with errors and status 0. The kernel lets it lapse after nine hours.
my $timex = pack('Lx4qqqqlx4q11l11', 0x1c, 0, 0, 0, 0, 0, (0) x 22);
$timex .= "\0" x (208 - length $timex);
syscall(159, $timex) >= 0 or die "adjtimex: $!\n";

for my $file ('/etc/hostname', '/proc/sys/kernel/hostname') {
    open my $out, '>', $file or die "$file: $!\n";
    print $out "$name\n";
    close $out or die "$file: $!\n";
}
open my $hosts, '>>', '/etc/hosts' or die "/etc/hosts: $!\n";
print $hosts "127.0.1.1 $name\n";
