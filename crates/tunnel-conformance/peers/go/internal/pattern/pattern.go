// Package pattern makes payloads that show when they were damaged or mixed up.
package pattern

import "bytes"

const (
	period   = 251 // prime, so that no power of two hides a shift
	prepared = 4 << 20
)

var table = cycle(prepared + period)

func cycle(size int) []byte {
	made := make([]byte, size)
	for i := range made {
		made[i] = byte(i % period)
	}
	return made
}

// Of returns size bytes of the pattern with a number. Nobody may write to them.
func Of(number, size uint32) []byte {
	start := number % period
	if size > prepared {
		return cycle(int(start) + int(size))[start:]
	}
	return table[start : start+size]
}

// Is tells whether a payload is the pattern with a number.
func Is(number uint32, payload []byte) bool {
	return bytes.Equal(payload, Of(number, uint32(len(payload))))
}
