// Runs one of gRPC's own interop cases on a plain connection, with the functions of
// grpc-go's interop client, or serves the services of these cases and of grpchan's
// channel tests.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/reflection"
)

// timeout is how long a case may take.
const timeout = 30 * time.Second

type client = testgrpc.TestServiceClient

// cases are the cases by their official names.
var cases = map[string]func(context.Context, client, ...grpc.CallOption){
	"empty_unary":                 interop.DoEmptyUnaryCall,
	"large_unary":                 interop.DoLargeUnaryCall,
	"client_streaming":            interop.DoClientStreaming,
	"server_streaming":            interop.DoServerStreaming,
	"ping_pong":                   interop.DoPingPong,
	"empty_stream":                interop.DoEmptyStream,
	"custom_metadata":             interop.DoCustomMetadata,
	"status_code_and_message":     interop.DoStatusCodeAndMessage,
	"special_status_message":      interop.DoSpecialStatusMessage,
	"cancel_after_begin":          interop.DoCancelAfterBegin,
	"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
	"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
	"soak":                        soak,
}

func main() {
	address := flag.String("address", "", "where to call")
	authority := flag.String("authority", "", "the authority of the calls; without one, the address")
	name := flag.String("case", "", "the case to run; without one, serve until standard input ends")
	flag.Parse()
	if *name == "" {
		exitOn(serve())
		return
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if *authority != "" {
		options = append(options, grpc.WithAuthority(*authority))
	}
	conn, err := grpc.NewClient("passthrough:"+*address, options...)
	exitOn(err)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	// A case that fails ends the program.
	switch *name {
	case "unimplemented_method":
		interop.DoUnimplementedMethod(ctx, conn)
	case "unimplemented_service":
		interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	default:
		run := cases[*name]
		if run == nil {
			exitOn(fmt.Errorf("there is no case %q", *name))
		}
		run(ctx, testgrpc.NewTestServiceClient(conn))
	}
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, interop.NewTestServer())
	grpchantesting.RegisterTestServiceServer(server, &grpchantesting.TestServer{})
	reflection.Register(server)
	fmt.Println("LISTENING", listener.Addr().(*net.TCPAddr).Port)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return server.Serve(listener)
}

// soak makes large calls again and again, by several callers at once.
func soak(ctx context.Context, client client, options ...grpc.CallOption) {
	var callers sync.WaitGroup
	for range 4 {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for range 25 {
				interop.DoLargeUnaryCall(ctx, client, options...)
			}
		}()
	}
	callers.Wait()
}
