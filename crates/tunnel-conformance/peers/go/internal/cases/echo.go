package cases

import (
	"context"

	"google.golang.org/grpc/codes"

	"interoppeer/internal/generated/echopb"
)

// echo calls the service of the examples.
func echo(ctx context.Context, c *caller) error {
	for _, message := range []string{"Hello", "naïve 🦀"} {
		response, err := c.echo.Echo(ctx, &echopb.EchoRequest{Message: message})
		if err != nil {
			return expectOK("echo", err)
		}
		if err := expect("echo", "Echo: "+message, response.GetMessage()); err != nil {
			return err
		}
	}
	return nil
}

func echoError(ctx context.Context, c *caller) error {
	request := &echopb.EchoErrorRequest{Code: int32(codes.NotFound), Message: "nothing here"}
	_, err := c.echo.EchoError(ctx, request)
	return expectStatus("echo error", codes.NotFound, "nothing here", err)
}
