package cases

import (
	"bytes"
	"fmt"
	"slices"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"interoppeer/internal/entry"
	pb "interoppeer/internal/generated/interoppb"
	"interoppeer/internal/pattern"
)

// expect compares what should be with what is.
func expect[T comparable](what string, want, got T) error {
	if want == got {
		return nil
	}
	return fmt.Errorf("%s: expected %v, got %v", what, want, got)
}

// describe tells a status in one line; codes are spelled as in gRPC's documentation.
func describe(err error) string {
	if err == nil {
		return "OK"
	}
	state, ok := status.FromError(err)
	if !ok {
		return fmt.Sprintf("an error without a status: %v", err)
	}
	return fmt.Sprintf("%v %q", spell(state.Code()), state.Message())
}

func spell(c codes.Code) code.Code { return code.Code(c) }

func expectOK(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: expected OK, got %s", what, describe(err))
}

// expectCode accepts any message.
func expectCode(what string, want codes.Code, err error) error {
	if got, ok := status.FromError(err); ok && got.Code() == want {
		return nil
	}
	return fmt.Errorf("%s: expected %v, got %s", what, spell(want), describe(err))
}

func expectStatus(what string, want codes.Code, message string, err error) error {
	if got, ok := status.FromError(err); ok && got.Code() == want && got.Message() == message {
		return nil
	}
	return fmt.Errorf("%s: expected %v %q, got %s", what, spell(want), message, describe(err))
}

func expectPattern(what string, number, size uint32, payload []byte) error {
	if uint32(len(payload)) != size {
		return fmt.Errorf("%s: expected %d bytes, got %d", what, size, len(payload))
	}
	if !pattern.Is(number, payload) {
		return fmt.Errorf("%s: expected pattern %d, got other bytes", what, number%251)
	}
	return nil
}

func expectObserved(what string, requests uint32, size uint64, got *pb.Observed) error {
	if got == nil {
		return fmt.Errorf("%s: expected to be told what the handler observed, got nothing", what)
	}
	if err := expect(what+": requests that the handler read", uint64(requests), got.GetRequests()); err != nil {
		return err
	}
	if err := expect(what+": bytes that the handler read", size, got.GetRequestBytes()); err != nil {
		return err
	}
	return expect(what+": requests damaged on the way", 0, got.GetDamaged())
}

// expectMetadata wants all values of each key, and allows other keys beside them.
func expectMetadata(what string, want []*pb.Entry, got metadata.MD) error {
	wanted := entry.ToMetadata(want)
	for _, each := range want {
		key := each.GetKey()
		if !slices.Equal(wanted[key], got[key]) {
			return fmt.Errorf("%s: expected %s to be %s, got %s", what, key, quote(wanted[key]), quote(got[key]))
		}
	}
	return nil
}

// quote shows values, and of long ones the part where they are likely to differ.
func quote(values []string) string {
	var line bytes.Buffer
	for i, value := range values {
		if i > 0 {
			line.WriteString(", ")
		}
		if len(value) > 100 {
			fmt.Fprintf(&line, "%d bytes that end in %q", len(value), value[len(value)-4:])
		} else {
			fmt.Fprintf(&line, "%q", value)
		}
	}
	return "[" + line.String() + "]"
}
