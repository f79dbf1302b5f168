// The peer for gRPC's own interop cases and for grpchan's channel battery: it
// serves their services through tunnels, and calls them.
//
// Its command line and its output are those of the other peers, and of the Rust
// counterpart in grpc-rust.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/metadata"
)

const usage = `usage: grpc-peer COMMAND [OPTION...]

  grpc-peer serve-forward   --address HOST:PORT
  grpc-peer call-forward    --address HOST:PORT --case NAME[,NAME...]|all
  grpc-peer serve-reverse   --address HOST:PORT
  grpc-peer call-reverse    --address HOST:PORT --case NAME[,NAME...]|all
  grpc-peer battery-forward --address HOST:PORT
  grpc-peer battery-reverse --address HOST:PORT
  grpc-peer cases

options:
`

// commands are what the program can do. Each returns why it did not succeed.
var commands = map[string]func(*options) error{
	"serve-forward":   serveForward,
	"serve-reverse":   serveReverse,
	"call-forward":    callForward,
	"call-reverse":    callReverse,
	"battery-forward": batteryForward,
	"battery-reverse": batteryReverse,
	"cases":           listCases,
}

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
	flags := flag.NewFlagSet("grpc-peer "+command, flag.ExitOnError)
	flags.StringVar(&o.address, "address", "", "where to listen, or whom to dial")
	flags.StringVar(&o.cases, "case", "", "what to try, names with commas between them, or `all`")
	flags.StringVar(&o.revision, "revision", "one", "the highest revision to offer: zero or one")
	flags.Var(o.opening, "key", "metadata to open tunnels with, as `NAME=VALUE`; may be repeated")
	seconds := flags.Float64("timeout", 30, "how many seconds one case, or the battery, may take")
	flags.BoolVar(&o.oneTunnel, "one-tunnel", false, "run all cases through one tunnel, not each through its own")
	flags.BoolVar(&o.again, "again", false, "dial again when a reverse tunnel has ended")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	_ = flags.Parse(arguments) // ends the program where that fails
	o.timeout = time.Duration(*seconds * float64(time.Second))
	switch {
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.address == "" && command != "cases":
		return nil, errors.New("--address is missing")
	case o.revision != "zero" && o.revision != "one":
		return nil, fmt.Errorf("there is no revision %q", o.revision)
	case len(o.opening) > 0 && !opens(command):
		return nil, fmt.Errorf("%s does not open tunnels, so --key has no meaning", command)
	}
	return o, nil
}

func opens(command string) bool {
	return command == "call-forward" || command == "battery-forward" || command == "serve-reverse"
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
	do, known := commands[command]
	if !known {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	o, err := parse(command, arguments)
	if err == nil {
		err = do(o)
	} else {
		err = misuse{err}
	}
	var misuse misuse
	switch {
	case err == nil:
		return 0
	case errors.As(err, &misuse):
		fmt.Fprintln(os.Stderr, "grpc-peer:", err)
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
	for _, name := range known() {
		fmt.Println(name)
	}
	return nil
}
