//go:build !slow

package lab

// Slow tells that tests take the time for all they can try: the build tag slow, which `make test-slow` sets.
const Slow = false
