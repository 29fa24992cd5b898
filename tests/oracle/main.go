// Command oracle answers how Kubernetes' own code loads and applies an audit policy.
//
// Every line of standard input is a JSON object with a policy file's text and requests; every line
// of standard output says why the policy was refused, or what each request is recorded with.
package main

import (
	"bufio"
	"encoding/json"
	"io"
	"log"
	"os"
	"sort"

	"k8s.io/apiserver/pkg/audit/policy"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/klog/v2"
)

type request struct {
	User        string   `json:"user"`
	Groups      []string `json:"groups"`
	Verb        string   `json:"verb"`
	Resource    bool     `json:"is_resource"`
	APIGroup    string   `json:"api_group"`
	Kind        string   `json:"resource"`
	Subresource string   `json:"subresource"`
	Namespace   string   `json:"namespace"`
	Name        string   `json:"name"`
	Path        string   `json:"path"`
}

type question struct {
	Policy   string    `json:"policy"`
	Requests []request `json:"requests"`
}

type decision struct {
	Level             string   `json:"level"`
	OmitStages        []string `json:"omit_stages"`
	OmitManagedFields bool     `json:"omit_managed_fields"`
}

type answer struct {
	Refused   string     `json:"refused,omitempty"`
	Decisions []decision `json:"decisions,omitempty"`
}

func ask(q question) answer {
	loaded, err := policy.LoadPolicyFromBytes([]byte(q.Policy))
	if err != nil {
		return answer{Refused: err.Error()}
	}
	evaluator := policy.NewPolicyRuleEvaluator(loaded)
	a := answer{}
	for _, r := range q.Requests {
		got := evaluator.EvaluatePolicyRule(authorizer.AttributesRecord{
			User:            &user.DefaultInfo{Name: r.User, Groups: r.Groups},
			Verb:            r.Verb,
			ResourceRequest: r.Resource,
			APIGroup:        r.APIGroup,
			Resource:        r.Kind,
			Subresource:     r.Subresource,
			Namespace:       r.Namespace,
			Name:            r.Name,
			Path:            r.Path,
		})
		d := decision{
			Level:             string(got.Level),
			OmitStages:        []string{},
			OmitManagedFields: got.OmitManagedFields,
		}
		for _, stage := range got.OmitStages {
			d.OmitStages = append(d.OmitStages, string(stage))
		}
		sort.Strings(d.OmitStages)
		a.Decisions = append(a.Decisions, d)
	}
	return a
}

func main() {
	klog.LogToStderr(false) // the loader's warnings, thousands of them
	klog.SetOutput(io.Discard)
	questions := json.NewDecoder(bufio.NewReader(os.Stdin))
	out := bufio.NewWriter(os.Stdout)
	answers := json.NewEncoder(out)
	for {
		var q question
		if err := questions.Decode(&q); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal(err)
		}
		if err := answers.Encode(ask(q)); err != nil {
			log.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		log.Fatal(err)
	}
}
