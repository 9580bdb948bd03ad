// Package lab is a throw-away machine with a real device-mapper, for tests and demonstrations: User-mode Linux, which
// is an ordinary process of the host, needs no root there and sees the host's own root file system, read-only, with an
// overlay in memory.
//
// Tests that need LVM, loop devices or mounts are named TestLab… and live in packages with
//
//	func TestMain(m *testing.M) { os.Exit(lab.Main(m, lab.Options{})) }
//
// Under go test such a test never runs on the host. The first one boots a machine, which runs them all in a binary of
// its own, and each is reported with its output, subtests and result. A machine that cannot start fails them.
package lab
