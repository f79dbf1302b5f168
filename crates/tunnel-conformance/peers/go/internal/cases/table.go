// Package cases holds what a caller tries through a tunnel.
package cases

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"

	"interoppeer/internal/generated/echopb"
	pb "interoppeer/internal/generated/interoppb"
)

// Case is one thing to try. It fails with a sentence that says what was
// expected and what came.
type Case struct {
	Name string
	run  func(context.Context, *caller) error
}

// All lists every case, in the order in which they run.
func All() []Case {
	return []Case{
		{"unary", unary},
		{"unary-empty-message", unaryEmptyMessage},
		{"unary-large", unaryLarge},
		{"server-stream", serverStream},
		{"server-stream-large", serverStreamLarge},
		{"client-stream", clientStream},
		{"client-stream-large", clientStreamLarge},
		{"bidi-ping-pong", bidiPingPong},
		{"bidi-half-close", bidiHalfClose},
		{"empty-stream", emptyStream},
		{"stream-empty-messages", streamEmptyMessages},
		{"headers-and-trailers", headersAndTrailers},
		{"metadata-text", metadataText},
		{"metadata-bin", metadataBin},
		{"metadata-bin-response", metadataBinResponse},
		{"metadata-bin-ascii", metadataBinASCII},
		{"failure-code", failureCode},
		{"failure-details", failureDetails},
		{"failure-after-headers", failureAfterHeaders},
		{"failure-after-messages", failureAfterMessages},
		{"failure-during-upload", failureDuringUpload},
		{"unimplemented-method", unimplementedMethod},
		{"unimplemented-service", unimplementedService},
		{"unicode-status-message", unicodeStatusMessage},
		{"concurrent-calls", concurrentCalls},
		{"slow-reader", slowReader},
		{"many-calls-in-a-row", manyCallsInARow},
		{"cancel-unary", cancelUnary},
		{"cancel-server-stream", cancelServerStream},
		{"cancel-bidi", cancelBidi},
		{"deadline", deadline},
		{"deadline-travels", deadlineTravels},
		{"echo", echo},
		{"echo-error", echoError},
	}
}

// Run tries the case through a tunnel, for no longer than it may take.
func (c Case) Run(tunnel grpc.ClientConnInterface, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	caller := &caller{
		name:    c.Name,
		conn:    tunnel,
		interop: pb.NewInteropServiceClient(tunnel),
		echo:    echopb.NewEchoServiceClient(tunnel),
	}
	ended := make(chan error, 1)
	go func() { ended <- c.run(ctx, caller) }()

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
