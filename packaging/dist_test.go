package packaging_test

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestVersionsSortByAge takes a source tree through its first tags. Whoever upgrades from one to the next does so by dpkg or rpm.
func TestVersionsSortByAge(t *testing.T) {
	tree := t.TempDir()
	if err := os.Mkdir(filepath.Join(tree, "packaging"), 0o755); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("version")
	if err == nil {
		err = os.WriteFile(filepath.Join(tree, "packaging", "version"), script, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	second := 10
	do := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = tree
		when := "2026-11-30T15:29:" + string(rune('0'+second/10)) + string(rune('0'+second%10)) + "+02:00"
		cmd.Env = append(withoutGit(os.Environ()), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
			"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org", "GIT_AUTHOR_DATE="+when, "GIT_COMMITTER_DATE="+when)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	commit := func() { second++; do("git", "commit", "-q", "--allow-empty", "-m", "x") }
	change := func() { write(t, filepath.Join(tree, "packaging", "version"), string(script)+"# changed\n") }
	restore := func() { do("git", "checkout", "-q", "packaging/version") }
	tag := func(name string) func() { return func() { commit(); do("git", "tag", name) } }

	var versions []string
	for _, step := range []struct {
		name, want string
		do         func()
	}{
		{"without a history", `0~unknown`, func() {}},
		{"first commit", `1\.0\.0~dev\.20261130132911\.g[0-9a-f]{12}`, func() { do("git", "init", "-q"); do("git", "add", "."); commit() }},
		{"changed", `1\.0\.0~dev\.20261130132911\.g[0-9a-f]{12}\.dirty`, change},
		{"later commit", `1\.0\.0~dev\.20261130132912\.g[0-9a-f]{12}`, func() { restore(); commit() }},
		{"candidate", `1\.0\.0~rc2`, tag("v1.0.0-rc2")},
		{"after a candidate", `1\.0\.0~rc2\+1\.g[0-9a-f]{12}`, commit},
		{"later candidate", `1\.0\.0~rc10`, tag("v1.0.0-rc10")},
		{"release", `1\.0\.0`, tag("v1.0.0")},
		{"other tags", `1\.0\.0`, func() { do("git", "tag", "nightly") }},
		{"release, changed", `1\.0\.0\+0\.dirty`, change},
		{"after a release", `1\.0\.0\+1\.g[0-9a-f]{12}`, func() { restore(); commit() }},
		{"after a release, changed", `1\.0\.0\+1\.g[0-9a-f]{12}\.dirty`, change},
		{"ten after a release", `1\.0\.0\+10\.g[0-9a-f]{12}`, func() {
			restore()
			for range 9 {
				commit()
			}
		}},
		{"candidate of the next", `1\.0\.1~rc1`, tag("v1.0.1-rc1")},
		{"next", `1\.0\.1`, tag("v1.0.1")},
		{"much later", `1\.10\.0`, tag("v1.10.0")},
	} {
		step.do()
		got := do("packaging/version")
		if !regexp.MustCompile("^" + step.want + "$").MatchString(got) {
			t.Errorf("%s: version %s, want %s", step.name, got, step.want)
		}
		if !slices.Contains(versions, got) {
			versions = append(versions, got)
		}
	}
	for i, newer := range versions {
		for _, older := range versions[:i] {
			if err := exec.Command("dpkg", "--compare-versions", older, "lt", newer).Run(); err != nil {
				t.Errorf("dpkg does not sort %s before %s: %v", older, newer, err)
			}
			if compareAsRPM(older, newer) >= 0 {
				t.Errorf("rpm does not sort %s before %s", older, newer)
			}
		}
	}
	tag("v2.0-beta")()
	cmd := exec.Command(filepath.Join(tree, "packaging", "version"))
	cmd.Env = withoutGit(os.Environ())
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "v2.0-beta") {
		t.Errorf("a tag that would not sort gives %q, %v", out, err)
	}
}

// A clone without the tag behind it has a version older than all, and gives no package, which would be older than what is installed.
func TestShallowCloneGivesNoPackage(t *testing.T) {
	tree := t.TempDir()
	run := func(name string, args ...string) (string, error) {
		cmd := exec.Command(name, args...)
		cmd.Dir = tree
		cmd.Env = append(withoutGit(os.Environ()), "GIT_CEILING_DIRECTORIES="+filepath.Dir(tree), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
		out, err := cmd.CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	write(t, filepath.Join(tree, "version"), read(t, "version"))
	for _, command := range [][]string{
		{"mkdir", "-p", "origin/packaging"}, {"cp", "version", "origin/packaging/"}, {"chmod", "755", "origin/packaging/version"},
		{"git", "-C", "origin", "init", "-q"}, {"git", "-C", "origin", "add", "."},
		{"git", "-C", "origin", "commit", "-q", "-m", "x"}, {"git", "-C", "origin", "tag", "v1.0.1"},
		{"git", "-C", "origin", "commit", "-q", "--allow-empty", "-m", "y"},
		{"git", "clone", "-q", "--depth", "1", "--no-tags", "file://" + tree + "/origin", "clone"},
	} {
		if out, err := run(command[0], command[1:]...); err != nil {
			t.Fatalf("%q: %v\n%s", command, err, out)
		}
	}
	if got, err := run("clone/packaging/version"); err != nil || got != "0~shallow" {
		t.Errorf("the version of a shallow clone is %q, %v", got, err)
	}
	for version, hint := range map[string]string{"0~shallow": "git fetch --unshallow --tags", "0~unknown": "make VERSION=1.2.3"} {
		out, err := exec.Command("./build", version, t.TempDir(), "amd64", "tarball").CombinedOutput()
		if err == nil || !strings.Contains(string(out), hint) {
			t.Errorf("a package of %s: %q, %v", version, out, err)
		}
	}
	write(t, filepath.Join(tree, "clone", ".git", "HEAD"), "no longer git's\n") // git refuses it, as it does a tree of another user
	if got, err := run("clone/packaging/version"); err != nil || !strings.HasSuffix(got, "0~unknown") {
		t.Errorf("the version of a tree that git refuses is %q, %v", got, err)
	}
}

// withoutGit drops what git tells its hooks of their repository, which is not the one of a test.
func withoutGit(env []string) []string {
	return slices.DeleteFunc(env, func(variable string) bool { return strings.HasPrefix(variable, "GIT_") })
}

// compareAsRPM compares versions as rpmvercmp of rpm does, whose carets are not used here.
func compareAsRPM(a, b string) int {
	separators := func(r rune) bool { return !strings.ContainsRune("~", r) && !isDigit(r) && !isLetter(r) }
	for {
		a, b = strings.TrimLeftFunc(a, separators), strings.TrimLeftFunc(b, separators)
		tildeA, tildeB := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
		switch {
		case tildeA && tildeB:
			a, b = a[1:], b[1:]
			continue
		case tildeA:
			return -1
		case tildeB:
			return 1
		case a == "" || b == "":
			return cmp.Compare(len(a), len(b))
		}
		of := isLetter
		if isDigit(rune(a[0])) {
			of = isDigit
		}
		restA, restB := strings.TrimLeftFunc(a, of), strings.TrimLeftFunc(b, of)
		partA, partB := a[:len(a)-len(restA)], b[:len(b)-len(restB)]
		if partB == "" { // numbers are newer than letters
			if isDigit(rune(a[0])) {
				return 1
			}
			return -1
		}
		if isDigit(rune(a[0])) {
			partA, partB = strings.TrimLeft(partA, "0"), strings.TrimLeft(partB, "0")
			if c := cmp.Compare(len(partA), len(partB)); c != 0 {
				return c
			}
		}
		if c := cmp.Compare(partA, partB); c != 0 {
			return c
		}
		a, b = restA, restB
	}
}

func isDigit(r rune) bool  { return '0' <= r && r <= '9' }
func isLetter(r rune) bool { return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' }

// TestTarball builds it twice, as two people would, and looks whether it has what README's way to install it by hand takes.
func TestTarball(t *testing.T) {
	host := strings.TrimSpace(output(t, nil, "go", "env", "GOHOSTARCH"))
	arch := host
	if host != "arm64" {
		arch = "amd64" // on other machines it is built and not run
	}
	name := "voltar-" + firstVersion + "-linux-" + arch
	first := buildTarball(t, arch, "022")
	if second := buildTarball(t, arch, "077"); !bytes.Equal(first, second) {
		t.Error("building it twice gives two tarballs")
	}

	files := unpacked(t, first, name)
	for _, want := range []string{"voltar", "voltar.toml", "LICENSE", "NOTICE", "README.md", "CHANGELOG.md", "docs/service.md", "man/voltar.8",
		"man/voltar.toml.5", "completion/bash", "completion/zsh", "completion/fish"} {
		if files[want] == "" {
			t.Errorf("it lacks %s", want)
		}
	}
	for _, library := range []string{"The Go standard library", "github.com/minio/minio-go/v7", "filippo.io/age"} {
		if !strings.Contains(files["NOTICE"], "== "+library) {
			t.Errorf("NOTICE lacks the licence of %s", library)
		}
	}
	for _, pattern := range installedByHand(t) {
		matches := slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(file string) bool {
			matches, err := path.Match(pattern, file)
			return matches && err == nil
		})
		if !matches {
			t.Errorf("README installs %s, which is not there", pattern)
		}
	}

	if arch != host {
		return
	}
	program := filepath.Join(t.TempDir(), "voltar")
	if err := os.WriteFile(program, []byte(files["voltar"]), 0o755); err != nil {
		t.Fatal(err)
	}
	if got := output(t, nil, program, "--version"); !strings.Contains(got, firstVersion) {
		t.Errorf("the program calls itself %q", got)
	}
}

// installedByHand returns what README's commands to install by hand install, as patterns below the folder they are run in.
func installedByHand(t *testing.T) (patterns []string) {
	t.Helper()
	for _, command := range regexp.MustCompile(`(?m)^ +install (.*)$`).FindAllStringSubmatch(read(t, "../README.md"), -1) {
		for _, word := range strings.Fields(command[1]) {
			if word == "voltar" || strings.HasPrefix(word, "packaging/") {
				patterns = append(patterns, word)
			}
		}
	}
	if want := []string{"voltar", "packaging/systemd/*", "packaging/57-voltar.rules", "packaging/tmpfiles.conf"}; !slices.Equal(patterns, want) {
		t.Errorf("README installs by hand %q, want %q", patterns, want)
	}
	return patterns
}

// buildTarball builds the tarball with a umask and a folder for temporary files of its own.
func buildTarball(t *testing.T, arch, umask string) []byte {
	t.Helper()
	folder := t.TempDir()
	built := output(t, []string{"TMPDIR=" + t.TempDir(), "TZ=Asia/Tokyo", "SOURCE_DATE_EPOCH="}, "sh", "-c", `umask "$1" && exec ./build "$2" "$3" "$4" tarball`,
		"sh", umask, firstVersion, folder, arch)
	text, err := os.ReadFile(strings.TrimSpace(built))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// unpacked returns the files of a tarball, by their names below its one folder.
func unpacked(t *testing.T, tarball []byte, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	stream, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		t.Fatal(err)
	}
	for reader := tar.NewReader(stream); ; {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		file, inFolder := strings.CutPrefix(header.Name, folder+"/")
		if !inFolder || header.Uid != 0 || header.Gid != 0 || header.Mode&0o022 != 0 {
			t.Errorf("%s belongs to %d:%d and has mode %o", header.Name, header.Uid, header.Gid, header.Mode)
		}
		if header.Typeflag == tar.TypeReg {
			files[file] = string(text)
		}
	}
}

// output runs a command in this folder, with more of an environment, and returns what it printed.
func output(t *testing.T, env []string, name string, args ...string) string {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, stderr.String())
	}
	return string(out)
}
