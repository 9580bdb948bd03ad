package main

import (
	"fmt"
	"path/filepath"
	"strings"
)

// shell runs a pipeline in which every part must succeed.
func shell(format string, args ...any) []string {
	return []string{"bash", "-o", "pipefail", "-c", fmt.Sprintf(format, args...)}
}

// quote makes one word of a shell of any text.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func (b *bench) step(args ...string) []string { return append([]string{b.self, "step"}, args...) }

// fresh empties and makes a folder of results.
func fresh(dir string) []string { return shell("rm -rf %[1]s && mkdir %[1]s", dir) }

// extracted is what the names of folders begin with that hold extracted trees; roundMark in an argument is the number of
// the round. Each round has folders of its own, and all are removed before the first: ext4 passes over inodes that were
// freed in the last minutes, and making files right after many were removed costs several times as much.
const (
	extracted = "x-" + roundMark + "-"
	roundMark = "{round}"
)

// tasks is everything that is compared. Each reads the tree once it is in the page cache: what is compared is work, not
// disks. Nobody waits for the disk at the end either.
func (b *bench) tasks() []*task {
	tree, sample := quote(b.tree), quote(b.sample)
	tarOne := quote("./" + b.sample)
	tarAlone := shell("tar -C %s -cf - . | cat >/dev/null", tree)
	return append([]*task{
		{group: "archive", name: "tar alone (into a pipe)", before: [][]string{tarAlone}, argv: tarAlone}, // the first to read it
		{group: "archive", name: "voltar default", base: true, before: [][]string{fresh("v")}, result: "v",
			argv: b.step("archive", "v", b.tree, "default")},
		{group: "archive", name: "voltar fast", before: [][]string{fresh("vf")}, result: "vf",
			argv: b.step("archive", "vf", b.tree, "fast")},
		{group: "archive", name: "voltar default, two volumes at a time", before: [][]string{fresh("v2")}, result: "v2",
			argv: b.step("two", "v2", b.tree)},
		{group: "archive", name: "tar -czf, then sha1sum", before: [][]string{fresh("t")}, result: "t",
			argv: shell("tar -C %s -czf t/a.tar.gz . && sha1sum t/a.tar.gz >t/sum", tree)},
		{group: "archive", name: "tar | pigz -p2 -6 | tee | sha1sum", needs: "pigz", before: [][]string{fresh("p")}, result: "p",
			argv: shell("tar -C %s -cf - . | pigz -p2 -6 | tee p/a.tar.gz | sha1sum >p/sum", tree)},
		{group: "archive", name: "tar | igzip -1 | tee | sha1sum", needs: "igzip", before: [][]string{fresh("i")}, result: "i",
			argv: shell("tar -C %s -cf - . | igzip -1 | tee i/a.tar.gz | sha1sum >i/sum", tree)},
		{group: "archive", name: "bsdtar -czf, then sha1sum", needs: "bsdtar", before: [][]string{fresh("b")}, result: "b",
			argv: shell("bsdtar -C %s -czf b/a.tar.gz . && sha1sum b/a.tar.gz >b/sum", tree)},
		{group: "archive", name: "restic, first backup", needs: "restic", result: "restic",
			before: [][]string{shell("rm -rf restic restic.cache && restic init -q -r restic")},
			argv:   shell("R=$PWD/restic && cd %s && restic backup -q -r $R .", tree)},
		{group: "archive", name: "borg, lz4, first backup", needs: "borg", result: "borg",
			before: [][]string{shell("rm -rf borg borg.base && borg init -e none borg")},
			argv:   shell("R=$PWD/borg && cd %s && borg create -C lz4 $R::a .", tree)},

		{group: "verify", name: "voltar, all of it, with sums", base: true, argv: b.step("verify", "v")},
		{group: "verify", name: "sha1sum -c, then gzip -t", argv: shell("sha1sum -c --quiet t/sum && gzip -t t/a.tar.gz")},
		{group: "verify", name: "restic check --read-data", needs: "restic", argv: shell("restic check -q --read-data -r restic")},
		{group: "verify", name: "borg check --verify-data", needs: "borg", argv: shell("borg check --verify-data borg")},

		{group: "extract", name: "voltar", base: true, argv: b.step("extract", "v", extracted+"voltar")},
		{group: "extract", name: "tar -xzf", before: [][]string{fresh(extracted + "tar")},
			argv: shell("tar -C " + extracted + "tar -xzf t/a.tar.gz")},
		{group: "extract", name: "bsdtar -xzf", needs: "bsdtar", before: [][]string{fresh(extracted + "bsdtar")},
			argv: shell("bsdtar -C " + extracted + "bsdtar -xzpf t/a.tar.gz")},
		{group: "extract", name: "restic restore", needs: "restic", before: [][]string{fresh(extracted + "restic")},
			argv: shell("restic restore -q -r restic latest --target " + extracted + "restic")},
		{group: "extract", name: "borg extract", needs: "borg", before: [][]string{fresh(extracted + "borg")},
			argv: shell("cd " + extracted + "borg && borg extract ../borg::a")},

		{group: "list", name: "voltar", base: true, argv: b.step("list", "v")},
		{group: "list", name: "tar -tzf", argv: shell("tar -tzf t/a.tar.gz")},
		{group: "list", name: "restic ls", needs: "restic", argv: shell("restic ls -q -r restic latest")},
		{group: "list", name: "borg list", needs: "borg", argv: shell("borg list --short borg::a")},

		{group: "one file", name: "voltar", base: true, argv: b.step("one", "v", b.sample)},
		{group: "one file", name: "tar -xzf", argv: shell("tar -xzOf t/a.tar.gz %s", tarOne)},
		{group: "one file", name: "restic dump", needs: "restic",
			argv: shell("restic dump -q -r restic latest %s", quote(filepath.Join("/", b.sample)))},
		{group: "one file", name: "borg extract", needs: "borg", argv: shell("borg extract --stdout borg::a %s", sample)},
	}, b.secondNights()...)
}

// levelTasks archives at every level.
func (b *bench) levelTasks() []*task {
	var tasks []*task
	for level := 1; level <= 9; level++ {
		name := fmt.Sprint(level)
		tasks = append(tasks, &task{group: "level", name: name, base: level == 6, before: [][]string{fresh("v")}, result: "v",
			argv: b.step("archive", "v", b.tree, name)})
	}
	return tasks
}

// scaleTasks archives trees of ever more files without data, which cost all but their compression.
func (b *bench) scaleTasks(dir string) []*task {
	var tasks []*task
	for i, files := range []int{125_000, 250_000, 500_000, 1_000_000} {
		tree := filepath.Join(dir, fmt.Sprint(files))
		count := fmt.Sprint(files)
		tasks = append(tasks,
			&task{group: "scale", name: count + " files", base: i == 0, result: filepath.Join("v", indexName),
				before: [][]string{fresh("v"), b.step("populate", tree, count)}, argv: b.step("archive", "v", tree, "default")},
			&task{group: "scale, one file", name: "out of " + count, base: i == 0,
				argv: b.step("one", "v", populatedName(files*2/3))})
	}
	return tasks
}
