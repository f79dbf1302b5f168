package official

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
)

const (
	soakWorkers    = 4
	soakIterations = 25 // of each worker
)

// soak makes large calls again and again. The function that exists for it insists
// on a *grpc.ClientConn; each of its calls is the one of large_unary. How long a
// call takes says more about the machine than about the tunnel.
func soak(ctx context.Context, channel grpc.ClientConnInterface) error {
	client := testgrpc.NewTestServiceClient(channel)
	failures := make([]error, soakWorkers)
	var workers sync.WaitGroup
	for worker := range failures {
		workers.Add(1)
		go func() {
			defer workers.Done()
			failures[worker] = soakOne(ctx, client)
		}()
	}
	workers.Wait()
	return errors.Join(failures...)
}

func soakOne(ctx context.Context, client testgrpc.TestServiceClient) error {
	for iteration := range soakIterations {
		if err := caught(func() { interop.DoLargeUnaryCall(ctx, client) }); err != nil {
			return fmt.Errorf("iteration %d: %w", iteration, err)
		}
	}
	return nil
}
