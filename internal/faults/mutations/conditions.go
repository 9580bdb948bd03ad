package main

// mutation is one condition, and how to disable it.
type mutation struct {
	name     string // what must hold
	file     string
	old, new string
	pkg      string // of the tests that have to notice
	tests    string // and which of them, as a regular expression
}

// conditions are those of the gate: what must hold before the manifest of a backup is written, or before it may say that
// the backup is complete.
var conditions = []mutation{
	{
		name: "the mounted device is the one that was mapped", file: "internal/mount/mount.go",
		old: "if got.dev != info.Rdev {", new: "if false {",
		pkg: "./internal/mount", tests: "^TestLabAnotherDeviceIsRefused$",
	},
	{
		name: "a file that ends before its size is listed as damaged", file: "archive/file.go",
		old: "lost.add(offset, int64(len(p)), io.EOF)", new: "",
		pkg: "./archive", tests: "Damage",
	},
	{
		name: "a block of a file that cannot be read is listed as damaged", file: "archive/file.go",
		old: "lost.add(offset, int64(len(block)), err)", new: "_ = lost",
		pkg: "./archive", tests: "Damage",
	},
	{
		name: "a tree is not empty where the filesystem counts inodes in use", file: "internal/extent/gate.go",
		old: "used > freshInodes+stats.Entries", new: "used < 0",
		pkg: "./internal/extent", tests: "^TestCheckNotEmpty$",
	},
	{
		name: "a tree is not empty where FAT or btrfs has bytes in use", file: "internal/extent/gate.go",
		old: "used > fresh {", new: "used < 0 {",
		pkg: "./internal/extent", tests: "^TestCheckNotEmpty$",
	},
	{
		name: "errors that the kernel found in the filesystem make it damaged", file: "internal/extent/kernelerrors.go",
		old: "x.DamagedCount++", new: "",
		pkg: "./internal/extent", tests: "^TestKernelErrors",
	},
	{
		name: "the kernel's errors are counted from the mount on", file: "internal/mount/mount.go",
		old: "if err := mounted.countErrors(fsType); err != nil {", new: "if err := error(nil); err != nil {",
		pkg: "./internal/mount", tests: "^TestLab(PanicOnErrors|ErrorsSayWhy)",
	},
	{
		name: "each store took as many bytes as were sent", file: "internal/placement/output.go",
		old: "err == nil && object.SizeBytes != file.SizeBytes", new: "false",
		pkg: "./internal/placement", tests: "^TestGate",
	},
	{
		name: "a destination that failed has no further part", file: "internal/placement/output.go",
		old: "			s.branch.drop(fmt.Errorf(\"write %s: %w\", f.name, err))", new: "			_ = err",
		pkg: "./internal/placement", tests: "^TestGate",
	},
	{
		name: "a file that was not produced whole does not count", file: "internal/placement/output.go",
		old: "if err := produce(file); err != nil {", new: "if err := produce(file); err != nil && false {",
		pkg: "./internal/placement", tests: "^TestGate",
	},
	{
		name: "a full destination fails the backup", file: "internal/durable/file.go",
		old: "	f.err = err\n	return n, err", new: "	return len(data), nil",
		pkg: "./internal/durable", tests: ".",
	},
	{
		name: "the store holds every file of the manifest", file: "internal/catalog/backup.go",
		old: "			errs = append(errs, fmt.Errorf(\"%s: %w\", key, store.ErrNotExist))", new: "			_ = store.ErrNotExist",
		pkg: "./internal/catalog", tests: "^TestCommitComparesTheStore$",
	},
	{
		name: "the store holds each file of its size", file: "internal/catalog/backup.go",
		old: "} else if size != file.SizeBytes {", new: "} else if false {",
		pkg: "./internal/catalog", tests: "^TestCommitComparesTheStore$",
	},
	{
		name: "the store holds nothing else there", file: "internal/catalog/backup.go",
		old: "errs = append(errs, fmt.Errorf(\"%s is not in the manifest\", key))", new: "_ = key",
		pkg: "./internal/catalog", tests: "^TestCommitComparesTheStore$",
	},
	{
		name: "the folder of a backup was empty before", file: "internal/catalog/claim.go",
		old: "return o.Key != d.key(ClaimName) }) {", new: "return false }) {",
		pkg: "./internal/catalog", tests: ".",
	},
	{
		name: "one of several writers has the folder of a backup", file: "internal/catalog/claim.go",
		old: "opts.IfAbsent = true", new: "opts.IfAbsent = false",
		pkg: "./internal/catalog", tests: "^TestOneOfSeveralWritersHasTheFolder$",
	},
	{
		name: "what is ended is this run's own", file: "internal/catalog/claim.go",
		old: "case !bytes.Equal(held, d.mark):", new: "case len(held) == 0:",
		pkg: "./internal/catalog", tests: "^TestWhatAnotherHasTakenIsLeftAlone$",
	},
	{
		name: "the store keeps names as they are", file: "internal/catalog/claim.go",
		old: "if !slices.Contains(names, name) {", new: "if false {",
		pkg: "./internal/catalog", tests: "^TestNamesThatFallTogetherAreRefused$",
	},
	{
		name: "the snapshot has not overflowed", file: "lvm/watch.go",
		old: "if st.Invalid {", new: "if false {",
		pkg: "./lvm", tests: "^TestWatch",
	},
	{
		name: "the snapshot is the one that was made", file: "lvm/watch.go",
		old: "if st.UUID != w.snap.UUID {", new: "if false {",
		pkg: "./lvm", tests: "^TestWatch",
	},
	{
		name: "the thin pool is below its limits", file: "lvm/watch.go",
		old: "return st.Pool.Check(w.policy.PoolDataLimit, w.policy.PoolMetadataLimit)", new: "return nil",
		pkg: "./lvm", tests: "^TestWatch",
	},
	{
		name: "the snapshot's state can be read after the last read of it", file: "lvm/watch.go",
		old: "	st, err := w.status(ctx)\n	if err == nil {\n		err = w.judge(st)\n	}", new: "	var err error",
		pkg: "./lvm", tests: "^TestWatch",
	},
	{
		name: "the watch's verdict comes before the manifest", file: "internal/backup/watch.go",
		old: "	case err == nil:\n		return lost\n", new: "	case err == nil:\n		return nil\n",
		pkg: "./cmd/voltar", tests: "^TestLabOverflowAtTheLastMoment$",
	},
	{
		name: "an extent that lacks data makes the backup damaged", file: "internal/backup/publish.go",
		old: "if x.DamagedCount > 0 {", new: "if false {",
		pkg: "./internal/backup", tests: "^TestGate",
	},
	{
		name: "a dump that failed makes the backup damaged", file: "internal/backup/publish.go",
		old: "	if len(a.dumps.missing) > 0 {\n", new: "	if false {\n",
		pkg: "./internal/backup", tests: "^TestGate",
	},
	{
		name: "a manifest that lacks data cannot say complete", file: "internal/catalog/codec.go",
		old: "if e.State == StateFailed || e.DamagedCount > 0 || len(e.Damaged) > 0 {", new: "if false {",
		pkg: "./internal/catalog", tests: "^TestEncodeRefusesAFalseSuccess$",
	},
}
