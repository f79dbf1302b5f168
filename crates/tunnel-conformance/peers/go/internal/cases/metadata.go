package cases

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/metadata"

	"interoppeer/internal/entry"
	pb "interoppeer/internal/generated/interoppb"
)

// headersAndTrailers wants both from every kind, whether it succeeds or fails.
func headersAndTrailers(ctx context.Context, c *caller) error {
	headers := entry.Pairs("x-header", "first", "x-header", "second", "x-other-header", "yes")
	trailers := entry.Pairs("x-trailer", "first", "x-trailer", "second", "x-other-trailer", "yes")
	for _, k := range allKinds {
		for _, failure := range []*pb.Failure{nil, {Code: 9, Message: "asked for", Moment: pb.Failure_AFTER_HEADERS}} {
			script := &pb.Script{Headers: headers, Trailers: trailers, Responses: 2, ResponseBytes: 10, Failure: failure}
			got := c.callStream(ctx, k, requests(script, 1, 10)...)
			what := k.name
			if failure == nil {
				if err := expectOK(what, got.err); err != nil {
					return err
				}
			} else {
				what += " that fails"
				if err := expectStatus(what, 9, "asked for", got.err); err != nil {
					return err
				}
			}
			if err := expectMetadata(what+": headers", headers, got.headers); err != nil {
				return err
			}
			if err := expectMetadata(what+": trailers", trailers, got.trailers); err != nil {
				return err
			}
		}
	}
	return nil
}

func metadataText(ctx context.Context, c *caller) error {
	var printable strings.Builder
	for char := byte('!'); char <= '~'; char++ {
		printable.WriteByte(char)
	}
	entries := entry.Pairs(
		"x-text", "some text",
		"x-printable", printable.String(),
		"x-several", "one", "x-several", "two", "x-several", "three",
		"x-commas", "a, b,c",
		"x-nothing", "",
		"x-punctuation.in_key-1", "yes",
	)
	return errors.Join(c.metadataThere(ctx, entries), c.metadataBack(ctx, entries))
}

// The two ways of binary metadata are separate cases: where a value cannot be
// sent, a peer may take the whole tunnel down.
func metadataBin(ctx context.Context, c *caller) error {
	return c.metadataThere(ctx, binary())
}

func metadataBinResponse(ctx context.Context, c *caller) error {
	return c.metadataBack(ctx, binary())
}

func binary() []*pb.Entry {
	return entry.Pairs("x-all-bin", upTo(256), "x-several-bin", "\xff", "x-several-bin", "\x00\xfe")
}

// metadataBinASCII is what every peer can do.
func metadataBinASCII(ctx context.Context, c *caller) error {
	entries := entry.Pairs("x-ascii-bin", upTo(128))
	return errors.Join(c.metadataThere(ctx, entries), c.metadataBack(ctx, entries))
}

// upTo returns the bytes below a number.
func upTo(end int) string {
	bytes := make([]byte, end)
	for i := range bytes {
		bytes[i] = byte(i)
	}
	return string(bytes)
}

// metadataThere sends entries with a request.
func (c *caller) metadataThere(ctx context.Context, entries []*pb.Entry) error {
	ctx = metadata.NewOutgoingContext(ctx, entry.ToMetadata(entries))
	response, err := c.interop.Unary(ctx, &pb.Request{Script: &pb.Script{Observe: true}})
	if err != nil {
		return expectOK("a call with metadata", err)
	}
	seen := entry.ToMetadata(response.GetObserved().GetMetadata())
	return expectMetadata("metadata that the handler read", entries, seen)
}

// metadataBack wants entries in the headers and in the trailers of a response.
func (c *caller) metadataBack(ctx context.Context, entries []*pb.Entry) error {
	script := &pb.Script{Headers: entries, Trailers: entries, ResponseBytes: 10}
	got := c.callStream(ctx, unaryKind, requests(script, 1, 10)...)
	if got.err != nil {
		return fmt.Errorf("a call with metadata in its response: expected OK, got %s", describe(got.err))
	}
	return errors.Join(
		expectMetadata("headers", entries, got.headers),
		expectMetadata("trailers", entries, got.trailers),
	)
}
