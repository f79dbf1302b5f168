package official

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/grpclog"
)

// failure is what a case panics with in place of ending the process.
type failure struct{ message string }

// surviving is a logger that turns a fatal message into a panic. The functions
// of package interop report every failure by such a message, and grpclog ends
// the process as soon as the logger returns.
type surviving struct{ grpclog.LoggerV2 }

func init() {
	grpclog.SetLoggerV2(surviving{grpclog.NewLoggerV2(io.Discard, io.Discard, os.Stderr)})
}

// Fatal implements grpclog.LoggerV2.
func (surviving) Fatal(arguments ...any) { panic(failure{fmt.Sprint(arguments...)}) }

// Fatalln implements grpclog.LoggerV2.
func (surviving) Fatalln(arguments ...any) { panic(failure{fmt.Sprintln(arguments...)}) }

// Fatalf implements grpclog.LoggerV2.
func (surviving) Fatalf(format string, arguments ...any) {
	panic(failure{fmt.Sprintf(format, arguments...)})
}

// caught runs something that reports failure by a fatal message, and returns that.
func caught(do func()) (err error) {
	defer func() {
		switch reason := recover().(type) {
		case nil:
		case failure:
			err = errors.New(strings.TrimSpace(strings.TrimPrefix(reason.message, "[interop]")))
		default:
			panic(reason)
		}
	}()
	do()
	return nil
}
