package lab

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// cpuLock is one CPU of the host, for one machine alone as long as there are others for others.
//
// A machine's kernel and each of its processes are processes of the host that hand over to each other at every system
// call and page fault. Waking another CPU for that takes some four times as long as going on with the same one.
type cpuLock struct {
	number int
	file   *os.File // locked; nil when every CPU had been taken
}

// takeCPU picks a CPU that this process may use and that no other machine of this user has. When all are taken, it shares one.
func takeCPU() (cpuLock, error) {
	var allowed unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		return cpuLock{}, fmt.Errorf("ask which CPUs there are: %w", err)
	}
	var numbers []int
	for cpu := 0; len(numbers) < allowed.Count(); cpu++ {
		if allowed.IsSet(cpu) {
			numbers = append(numbers, cpu)
		}
	}
	rand.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
	for _, cpu := range numbers {
		file, err := lockCPU(os.TempDir(), cpu)
		if err != nil {
			return cpuLock{}, err
		}
		if file != nil {
			return cpuLock{cpu, file}, nil
		}
	}
	return cpuLock{number: numbers[0]}, nil
}

// lockCPU returns nil when another machine has the CPU.
func lockCPU(dir string, cpu int) (*os.File, error) {
	path := filepath.Join(dir, fmt.Sprintf("voltar-cpu-%d-of-user-%d", cpu, os.Geteuid()))
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return file, nil
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = nil
	}
	return nil, errors.Join(err, file.Close())
}

// release gives the CPU to whoever wants it next.
func (c cpuLock) release() error {
	if c.file == nil {
		return nil
	}
	return c.file.Close()
}
