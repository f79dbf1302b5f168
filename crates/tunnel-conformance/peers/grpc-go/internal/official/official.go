// Package official runs gRPC's own interop cases over any channel.
package official

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"
)

// Case is one of the named cases.
type Case struct {
	Name string
	run  func(context.Context, grpc.ClientConnInterface) error
}

// All lists the cases, in the order in which they run.
func All() []Case {
	return []Case{
		{"empty_unary", with(interop.DoEmptyUnaryCall)},
		{"large_unary", with(interop.DoLargeUnaryCall)},
		{"client_streaming", with(interop.DoClientStreaming)},
		{"server_streaming", with(interop.DoServerStreaming)},
		{"ping_pong", with(interop.DoPingPong)},
		{"empty_stream", with(interop.DoEmptyStream)},
		{"custom_metadata", with(interop.DoCustomMetadata)},
		{"status_code_and_message", with(interop.DoStatusCodeAndMessage)},
		{"special_status_message", with(interop.DoSpecialStatusMessage)},
		{"unimplemented_method", unimplementedMethod},
		{"unimplemented_service", unimplementedService},
		{"cancel_after_begin", with(interop.DoCancelAfterBegin)},
		{"cancel_after_first_response", with(interop.DoCancelAfterFirstResponse)},
		{"timeout_on_sleeping_server", with(interop.DoTimeoutOnSleepingServer)},
		{"soak", soak},
	}
}

// Run tries the case over a channel, for no longer than it may take.
func (c Case) Run(channel grpc.ClientConnInterface, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, channel) }()

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// A case that is merely interrupted can say where it stood.
	select {
	case err := <-ended:
		if err != nil {
			return fmt.Errorf("timed out after %v: %w", limit, err)
		}
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("timed out after %v", limit)
	}
}

// with makes a case of a function that calls the test service.
func with(do func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption)) func(context.Context, grpc.ClientConnInterface) error {
	return func(ctx context.Context, channel grpc.ClientConnInterface) error {
		return caught(func() { do(ctx, testgrpc.NewTestServiceClient(channel)) })
	}
}

func unimplementedService(ctx context.Context, channel grpc.ClientConnInterface) error {
	return caught(func() { interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(channel)) })
}

// unimplementedMethod stands in for a function that insists on a *grpc.ClientConn.
func unimplementedMethod(ctx context.Context, channel grpc.ClientConnInterface) error {
	_, err := testgrpc.NewTestServiceClient(channel).UnimplementedCall(ctx, &testgrpc.Empty{})
	if status.Code(err) != codes.Unimplemented {
		return fmt.Errorf("TestService.UnimplementedCall: expected %v, got %w", codes.Unimplemented, orNothing(err))
	}
	return nil
}

// orNothing makes something printable of no error.
func orNothing(err error) error {
	if err == nil {
		return fmt.Errorf("%v", codes.OK)
	}
	return err
}
