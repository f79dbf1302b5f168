package battery

import (
	"bufio"
	"strings"
	"testing"
)

func TestResultsAreReadFromWhatTheRunnerPrints(t *testing.T) {
	printed := strings.Join([]string{
		"\x16=== RUN   battery",
		"\x16=== RUN   battery/unary",
		"\x16=== RUN   battery/unary/success",
		"--- PASS: battery/something that is merely logged (0.00s)",
		"\x16=== RUN   battery/unary/failure",
		"    file.go:12: wrong response code: Unknown != AlreadyExists",
		"    and a second line",
		"\x16=== NAME  battery/unary",
		"\x16--- FAIL: battery/unary (0.10s)",
		"    \x16--- PASS: battery/unary/success (0.00s)",
		"\x16    --- PASS: battery/unary/success (0.00s)",
		"\x16    --- FAIL: battery/unary/failure (0.10s)",
	}, "\n")
	results := parse(bufio.NewScanner(strings.NewReader(printed)))
	if len(results) != 2 || results[0].Name != "unary/success" || results[1].Name != "unary/failure" {
		t.Fatalf("unexpected results: %v", results)
	}
	if results[0].Err != nil {
		t.Errorf("unexpected failure: %v", results[0].Err)
	}
	want := "file.go:12: wrong response code: Unknown != AlreadyExists; and a second line"
	if results[1].Err == nil || results[1].Err.Error() != want {
		t.Errorf("unexpected failure: %v", results[1].Err)
	}
}
