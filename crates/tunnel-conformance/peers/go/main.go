// The Go peer: serves the test services through tunnels, and calls them.
//
// How it is used is described in the README above this directory; the Python
// peer has the same command line.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"

	"interoppeer/internal/cases"
)

const usage = `usage: peer COMMAND [OPTION...]

  peer serve-forward --address HOST:PORT
  peer call-forward  --address HOST:PORT --case NAME[,NAME...]|all
  peer serve-reverse --address HOST:PORT
  peer call-reverse  --address HOST:PORT --case NAME[,NAME...]|all
  peer cases

options:
`

// options are what the command line says.
type options struct {
	address   string
	cases     string
	revision  string
	opening   opening
	timeout   time.Duration
	oneTunnel bool
	again     bool
}

// opening is the metadata that a tunnel is opened with.
type opening metadata.MD

// String implements flag.Value.
func (o opening) String() string { return "" }

// Set implements flag.Value.
func (o opening) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found {
		return errors.New("expected NAME=VALUE")
	}
	metadata.MD(o).Append(key, value)
	return nil
}

func parse(command string, arguments []string) (*options, error) {
	o := &options{opening: opening{}}
	flags := flag.NewFlagSet("peer "+command, flag.ExitOnError)
	flags.StringVar(&o.address, "address", "", "where to listen, or whom to dial")
	flags.StringVar(&o.revision, "revision", "one", "the highest revision to offer: zero or one")
	seconds := 30.0
	if command == "call-forward" || command == "call-reverse" {
		flags.StringVar(&o.cases, "case", "", "what to try, names with commas between them, or `all`")
		flags.Float64Var(&seconds, "timeout", seconds, "how many seconds one case may take")
		flags.BoolVar(&o.oneTunnel, "one-tunnel", false, "run all cases through one tunnel")
	}
	if command == "call-forward" || command == "serve-reverse" {
		flags.Var(o.opening, "key", "metadata to open tunnels with, as `NAME=VALUE`; may be repeated")
	}
	if command == "serve-reverse" {
		flags.BoolVar(&o.again, "again", false, "dial again when the tunnel has ended")
	}
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	_ = flags.Parse(arguments) // ends the program where that fails
	o.timeout = time.Duration(seconds * float64(time.Second))
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.address == "" && command != "cases":
		return nil, errors.New("--address is missing")
	case o.revision != "zero" && o.revision != "one":
		return nil, fmt.Errorf("there is no revision %q", o.revision)
	}
	return o, nil
}

func main() {
	command, arguments := "", os.Args[1:]
	if len(arguments) > 0 {
		command, arguments = arguments[0], arguments[1:]
	}
	os.Exit(run(command, arguments))
}

// run returns the exit code: 0 for success, 1 for failure, 2 for misuse.
func run(command string, arguments []string) int {
	commands := map[string]func(*options) error{
		"serve-forward": serveForward,
		"serve-reverse": serveReverse,
		"call-forward":  callForward,
		"call-reverse":  callReverse,
		"cases":         listCases,
	}
	do, known := commands[command]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	o, err := parse(command, arguments)
	if err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		return 2
	}
	err = do(o)
	var misuse misuse
	switch {
	case err == nil:
		return 0
	case errors.As(err, &misuse):
		fmt.Fprintln(os.Stderr, "peer:", err)
		return 2
	default:
		fmt.Println("FAIL", oneLine(err))
		return 1
	}
}

// misuse is an error of whoever called the program.
type misuse struct{ error }

func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(c rune) bool { return c == '\n' || c == '\r' }), "; ")
}

func listCases(*options) error {
	for _, each := range cases.All() {
		fmt.Println(each.Name)
	}
	return nil
}

// inputEnds waits until whoever started the program no longer wants it.
func inputEnds() <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ended
}
