package lab

import "testing"

func TestEachMachineHasACPUOfItsOwn(t *testing.T) {
	dir := t.TempDir()
	first, err := lockCPU(dir, 0)
	if err != nil || first == nil {
		t.Fatalf("a CPU that nobody has: %v, %v", first, err)
	}
	if second, err := lockCPU(dir, 0); err != nil || second != nil {
		t.Errorf("a CPU that another has: %v, %v", second, err)
	}
	other, err := lockCPU(dir, 1)
	if err != nil || other == nil {
		t.Errorf("another CPU: %v, %v", other, err)
	}
	if err := (cpuLock{0, first}).release(); err != nil {
		t.Fatal(err)
	}
	if again, err := lockCPU(dir, 0); err != nil || again == nil {
		t.Errorf("a CPU that was given back: %v, %v", again, err)
	}
}
