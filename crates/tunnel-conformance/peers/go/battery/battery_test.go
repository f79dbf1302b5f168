// Package battery runs the channel tests of grpchan on a plain connection to the
// address in the environment variable BATTERY_ADDRESS, with the authority of
// BATTERY_AUTHORITY if there is one.
package battery

import (
	"os"
	"testing"

	"github.com/fullstorydev/grpchan/grpchantesting"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func TestBattery(t *testing.T) {
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if authority := os.Getenv("BATTERY_AUTHORITY"); authority != "" {
		options = append(options, grpc.WithAuthority(authority))
	}
	conn, err := grpc.NewClient("passthrough:"+os.Getenv("BATTERY_ADDRESS"), options...)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	grpchantesting.RunChannelTestCases(t, conn, true)
}
