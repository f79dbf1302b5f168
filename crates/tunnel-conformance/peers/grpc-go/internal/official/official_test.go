package official

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/test/bufconn"
)

func direct(t *testing.T, service testgrpc.TestServiceServer) grpc.ClientConnInterface {
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	testgrpc.RegisterTestServiceServer(server, service)
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:direct",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return listener.Dial() }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestCasesPassWithoutATunnel(t *testing.T) {
	conn := direct(t, interop.NewTestServer())
	for _, each := range All() {
		t.Run(each.Name, func(t *testing.T) {
			if err := each.Run(conn, 30*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}

// A failure is an error, and not the end of the process.
func TestCasesCanFail(t *testing.T) {
	conn := direct(t, testgrpc.UnimplementedTestServiceServer{})
	for _, each := range All() {
		if strings.HasPrefix(each.Name, "unimplemented") || each.Name == "cancel_after_begin" {
			continue
		}
		t.Run(each.Name, func(t *testing.T) {
			if err := each.Run(conn, 30*time.Second); err == nil {
				t.Error("it passes where nothing is implemented")
			}
		})
	}
}
