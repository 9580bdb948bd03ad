package lvm

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"testing"
)

// answer is what the kernel answers for devices of which `dmsetup status` writes a text.
func answer(text string) []byte {
	lines := strings.SplitAfter(text, "\n")
	buffer := make([]byte, dmStatusMaxBytes)
	header := dmHeader{DataStart: dmHeaderBytes, Targets: uint32(strings.Count(text, "\n"))}
	var spec dmTargetSpec
	fields := append(strings.SplitN(strings.TrimSpace(lines[0]), " ", 4), "", "", "", "")
	spec.StartSectors, _ = strconv.ParseUint(fields[0], 10, 64)
	spec.LengthSectors, _ = strconv.ParseUint(fields[1], 10, 64)
	copy(spec.Kind[:], fields[2])
	for at, part := range map[int]any{0: header, dmHeaderBytes: spec} {
		if _, err := binary.Encode(buffer[at:], binary.NativeEndian, part); err != nil {
			panic(err)
		}
	}
	copy(buffer[dmHeaderBytes+dmTargetBytes:], fields[3])
	return buffer
}

// target reads such an answer.
func target(text, kind string) (dmTarget, error) {
	c := Client{target: func(string) (dmTarget, error) { return parseDMStatus(answer(text)) }}
	return c.targetStatus("LVM-x", kind)
}

// What the kernel says of a classic snapshot, in the words of `dmsetup status`.
func TestStatusOfASnapshot(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want Status
		err  bool
	}{
		"new":             {text: "0 65536 snapshot 16/16384 16\n", want: Status{SizeBytes: 8 << 20, UsedBytes: 8 << 10, UsedPercent: 16.0 / 163.84}},
		"half":            {text: "0 65536 snapshot 8192/16384 24\n", want: Status{SizeBytes: 8 << 20, UsedBytes: 4 << 20, UsedPercent: 50}},
		"full":            {text: "0 65536 snapshot 16384/16384 32\n", want: Status{SizeBytes: 8 << 20, UsedBytes: 8 << 20, UsedPercent: 100}},
		"invalid":         {text: "0 65536 snapshot Invalid\n", want: Status{Invalid: true, UsedPercent: 100}},
		"overflow":        {text: "0 65536 snapshot Overflow\n", want: Status{Invalid: true, UsedPercent: 100}},
		"merge failed":    {text: "0 65536 snapshot Merge failed\n", err: true},
		"unknown":         {text: "0 65536 snapshot Unknown\n", err: true},
		"merging":         {text: "0 65536 snapshot-merge 16/16384 16\n", err: true},
		"an origin":       {text: "0 65536 snapshot-origin 0\n", err: true},
		"two targets":     {text: "0 8 snapshot 16/16384 16\n8 8 snapshot 16/16384 16\n", err: true},
		"cut short":       {text: "0 65536 snapshot 16/163\n", err: true},
		"rubbish":         {text: "0 65536 snapshot x/y z\n", err: true},
		"too much":        {text: "0 65536 snapshot 17000/16384 16\n", err: true},
		"of nothing":      {text: "0 65536 snapshot 0/0 0\n", err: true},
		"too large":       {text: "0 65536 snapshot 1/9223372036854775807 16\n", err: true},
		"nothing":         {text: "", err: true},
		"no table":        {text: "\n", err: true},
		"from the middle": {text: "8 65536 snapshot 16/16384 16\n", err: true},
	} {
		t.Run(name, func(t *testing.T) {
			var st Status
			target, err := target(tt.text, "snapshot")
			if err == nil {
				err = st.setSnapshot(target)
			}
			if tt.err {
				if !errors.Is(err, errKernelUnknown) {
					t.Errorf("%+v, %v, want that it is not known", st, err)
				}
				return
			}
			if err != nil || st != tt.want {
				t.Errorf("%+v, %v, want %+v", st, err, tt.want)
			}
		})
	}
}

// What the kernel says of a thin pool, and what becomes of it under the limits of 95 %.
func TestStatusOfAThinPool(t *testing.T) {
	pool := func(data, meta float64, health, full string) ThinPool {
		return ThinPool{SizeBytes: 64 << 20, DataPercent: data, MetadataPercent: meta, MetadataBytes: 4 << 20, WhenFull: full, Health: health}
	}
	checked := pool(50, 25, "metadata_read_only", "queue")
	checked.CheckNeeded = true
	for name, tt := range map[string]struct {
		status string
		want   ThinPool
		verdict,
		err error
	}{
		"well":             {status: "1 256/1024 512/1024 - rw discard_passdown queue_if_no_space - 1024", want: pool(50, 25, "", "queue")},
		"held metadata":    {status: "1 256/1024 512/1024 77 rw no_discard_passdown error_if_no_space - 1024", want: pool(50, 25, "", "error")},
		"without a mark":   {status: "1 256/1024 512/1024 - rw ignore_discard queue_if_no_space -", want: pool(50, 25, "", "queue")},
		"nearly full":      {status: "1 256/1024 973/1024 - rw discard_passdown queue_if_no_space - 1024", want: pool(100*973.0/1024, 25, "", "queue"), verdict: ErrPoolFull},
		"out of data":      {status: "1 256/1024 1024/1024 - out_of_data_space discard_passdown queue_if_no_space - 1024", want: pool(100, 25, "out_of_data", "queue"), verdict: ErrPoolFull},
		"full of metadata": {status: "1 1000/1024 512/1024 - rw discard_passdown queue_if_no_space - 1024", want: pool(50, 100*1000.0/1024, "", "queue"), verdict: ErrPoolFull},
		"read-only":        {status: "1 256/1024 512/1024 - ro discard_passdown queue_if_no_space - 1024", want: pool(50, 25, "metadata_read_only", "queue"), verdict: ErrPoolUnhealthy},
		"needs a check":    {status: "1 256/1024 512/1024 - ro discard_passdown queue_if_no_space needs_check 1024", want: checked, verdict: ErrPoolUnhealthy},
		"failed": {status: "Fail", want: ThinPool{SizeBytes: 64 << 20, DataPercent: Unknown, MetadataPercent: Unknown, Health: "failed"},
			verdict: ErrPoolUnhealthy},
		"error":         {status: "Error", err: errKernelUnknown},
		"a new mode":    {status: "1 256/1024 512/1024 - better discard_passdown queue_if_no_space - 1024", err: errKernelUnknown},
		"another order": {status: "1 256/1024 512/1024 - rw queue_if_no_space discard_passdown - 1024", err: errKernelUnknown},
		"a new mark":    {status: "1 256/1024 512/1024 - rw discard_passdown queue_if_no_space odd 1024", err: errKernelUnknown},
		"too short":     {status: "1 256/1024 512/1024 - rw", err: errKernelUnknown},
		"rubbish":       {status: "1 256/1024 512/x - rw discard_passdown queue_if_no_space - 1024", err: errKernelUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			target, err := target("0 131072 thin-pool "+tt.status+"\n", "thin-pool")
			if err != nil {
				t.Fatal(err)
			}
			got, err := target.thinPool()
			if !errors.Is(err, tt.err) || err == nil && got != tt.want {
				t.Fatalf("%+v, %v, want %+v, %v", got, err, tt.want, tt.err)
			}
			if err == nil {
				if err := got.Check(95, 95); !errors.Is(err, tt.verdict) {
					t.Errorf("%v, want %v", err, tt.verdict)
				}
			}
		})
	}
}

// A snapshot is known by its UUID, and lvm2 has the word where the device-mapper has none.
func TestWatchedStatus(t *testing.T) {
	classic := Snapshot{Volume{VG: "vg0", Name: "snap", UUID: "uuid-snap", VGUUID: "g-1", Kind: KindSnapshot}}
	thin := Snapshot{Volume{VG: "vg0", Name: "t", UUID: "u-t", VGUUID: "g-1", Kind: KindThin, Pool: "pool", PoolUUID: "u-p", Active: true, KernelMajor: 254, KernelMinor: 9}}
	const poolOK = "0 131072 thin-pool 1 256/1024 512/1024 - rw discard_passdown queue_if_no_space - 1024\n"
	for name, tt := range map[string]struct {
		snap        Snapshot
		says        string // the device-mapper, of asked
		uuid        string // of the thin snapshot's device
		asked       string
		used        float64
		lvm2        int // how often lvm2 is asked
		wantErr     error
		wantInvalid bool
	}{
		"classic":                {snap: classic, says: "0 65536 snapshot 8192/16384 16\n", asked: "LVM-g1uuidsnap", used: 50},
		"classic, invalid":       {snap: classic, says: "0 65536 snapshot Invalid\n", asked: "LVM-g1uuidsnap", used: 100, wantInvalid: true},
		"classic, not known":     {snap: classic, says: "0 65536 snapshot Unknown\n", asked: "LVM-g1uuidsnap", used: 1, lvm2: 1},
		"classic, not there":     {snap: classic, asked: "LVM-g1uuidsnap", used: 1, lvm2: 1},
		"thin":                   {snap: thin, says: poolOK, uuid: "LVM-g1ut", asked: "LVM-g1up-tpool", used: 50},
		"thin, pool unknown":     {snap: thin, says: "0 131072 thin-pool Error\n", uuid: "LVM-g1ut", asked: "LVM-g1up-tpool", lvm2: 1, wantErr: ErrNotFound},
		"thin, of another":       {snap: thin, says: poolOK, uuid: "LVM-g1other", lvm2: 1, wantErr: ErrNotFound},
		"thin, without a device": {snap: thin, says: poolOK, lvm2: 1, wantErr: ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			h := newFakeHost(t)
			var asked []string
			h.target = func(uuid string) (dmTarget, error) {
				asked = append(asked, uuid)
				return parseDMStatus(answer(tt.says))
			}
			if tt.snap.Name == "snap" {
				h.write("lvs.json", lvs(snap0+"}"))
			}
			if tt.uuid != "" {
				h.write("sys/dev/block/254:9/dm/uuid", tt.uuid+"\n")
			}
			st, err := h.watchedStatus(t.Context(), tt.snap)
			percent := st.UsedPercent
			if tt.snap.IsThin() {
				percent = st.Pool.DataPercent
			}
			if !errors.Is(err, tt.wantErr) || err == nil && (st.UUID != tt.snap.UUID || percent != tt.used || st.Thin != tt.snap.IsThin() || st.Invalid != tt.wantInvalid) {
				t.Errorf("%+v, %v", st, err)
			}
			if got := strings.Join(asked, " "); got != tt.asked || len(h.calls("lvs")) != tt.lvm2 || len(h.calls("dmsetup")) > 0 {
				t.Errorf("asked %q, and lvm2 %d times", got, len(h.calls("lvs")))
			}
		})
	}
}

func FuzzTargetStatus(f *testing.F) {
	f.Add(answer("0 65536 snapshot 16/16384 16\n"))
	f.Add(answer("0 131072 thin-pool 1 256/1024 512/1024 - rw discard_passdown queue_if_no_space needs_check 1024\n"))
	f.Add(answer("0 131072 thin-pool Fail\n"))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, buffer []byte) {
		target, err := parseDMStatus(buffer)
		if err != nil {
			return
		}
		if target.sizeBytes <= 0 {
			t.Errorf("%q has %d bytes", buffer, target.sizeBytes)
		}
		var st Status
		if err := st.setSnapshot(target); err == nil && (st.UsedPercent < 0 || st.UsedPercent > 100 || st.UsedBytes > st.SizeBytes) {
			t.Errorf("%q: %+v", buffer, st)
		}
		if p, err := target.thinPool(); err == nil && (p.DataPercent > 100 || p.MetadataPercent > 100) {
			t.Errorf("%q: %+v", buffer, p)
		}
	})
}
