package cases

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"interoppeer/internal/handler"
)

// Without any tunnel every case passes, or it asks for what gRPC does not promise.
func TestCasesPassWithoutATunnel(t *testing.T) {
	listener := bufconn.Listen(mebibyte)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(8 * mebibyte))
	handler.Register(server)
	go func() { _ = server.Serve(listener) }()
	defer server.Stop()

	dial := func(context.Context, string) (net.Conn, error) { return listener.Dial() }
	conn, err := grpc.NewClient("passthrough:direct",
		grpc.WithContextDialer(dial),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(8*mebibyte)))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, each := range All() {
		t.Run(each.Name, func(t *testing.T) {
			if err := each.Run(conn, 30*time.Second); err != nil {
				t.Error(err)
			}
		})
	}
}
