// Package battery runs the channel tests of grpchan outside of `go test`.
package battery

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"google.golang.org/grpc"
)

// root is the name of the test that all others are below of.
const root = "battery"

// Names lists the tests that have none below them, as far as anybody else needs
// to know: in the order in which they run.
func Names() []string {
	var names []string
	for _, kind := range []string{"unary", "client-stream", "server-stream", "half-duplex_bidi-stream", "full-duplex_bidi-stream"} {
		for _, outcome := range []string{"success", "failure", "timeout", "canceled"} {
			names = append(names, kind+"/"+outcome)
		}
	}
	return names
}

// Result is what came of one test.
type Result struct {
	Name string
	Err  error
}

// Run runs all tests over a channel. It can be called once in a process, and not
// from a test: what it gives the battery as its *testing.T comes from a test
// runner that ends the process when its tests have ended. So they never do: the
// last thing in the only test is to hand over the results.
func Run(channel grpc.ClientConnInterface, limit time.Duration) ([]Result, error) {
	output, input, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	results := make(chan []Result, 1)
	go func() { results <- parse(bufio.NewScanner(output)) }()

	// The flags of the runner are all there is in this set, and the marks that this
	// format puts before a line of its own tell it from anything that is logged.
	testing.Init()
	if err := flag.CommandLine.Parse([]string{"-test.v=test2json"}); err != nil {
		return nil, err
	}
	stdout := os.Stdout
	os.Stdout = input
	defer func() { os.Stdout = stdout }()
	go testing.Main(regexp.MatchString, []testing.InternalTest{{Name: root, F: func(t *testing.T) {
		grpchantesting.RunChannelTestCases(t, channel, true)
		_ = input.Close()
		select {}
	}}}, nil, nil)

	select {
	case found := <-results:
		if len(found) == 0 {
			return nil, errors.New("no test of the battery was run")
		}
		return found, nil
	case <-time.After(limit):
		return nil, fmt.Errorf("the battery timed out after %v", limit)
	}
}

var (
	verdict = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): ` + root + `/(\S+) \(`)
	begun   = regexp.MustCompile(`^=== (?:RUN|NAME|CONT) +` + root + `/(\S+)`)
)

// parse reads what the runner prints, and returns the tests that have none below
// them, in the order in which they ended.
func parse(lines *bufio.Scanner) []Result {
	var ended []Result
	logged := map[string][]string{}
	current := ""
	for lines.Scan() {
		line, marked := strings.CutPrefix(lines.Text(), "\x16")
		if !marked {
			logged[current] = append(logged[current], strings.TrimSpace(line))
		} else if match := begun.FindStringSubmatch(line); match != nil {
			current = match[1]
		} else if match := verdict.FindStringSubmatch(line); match != nil {
			ended = append(ended, Result{match[2], failure(match[1], logged[match[2]])})
		}
	}
	var leaves []Result
	for _, each := range ended {
		if !hasBelow(ended, each.Name) {
			leaves = append(leaves, each)
		}
	}
	return leaves
}

func failure(verdict string, logged []string) error {
	switch {
	case verdict == "PASS":
		return nil
	case len(logged) == 0:
		return fmt.Errorf("%s without a word", verdict)
	default:
		return errors.New(strings.Join(logged, "; "))
	}
}

func hasBelow(results []Result, name string) bool {
	for _, each := range results {
		if strings.HasPrefix(each.Name, name+"/") {
			return true
		}
	}
	return false
}
