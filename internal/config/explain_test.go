package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// What a person mistypes is told in a person's words, with what was probably meant.
func TestMistakesAreExplained(t *testing.T) {
	for _, c := range []struct{ file, want string }{
		{"[retention]\nday = 7\n", `line 2: unknown key "retention.day": did you mean "days"?`},
		{"parallell = 7\n", `unknown key "parallell": did you mean "parallel"?`},
		{"[[destination]]\nname = \"a\"\ntyp = \"disk\"\n", `unknown key "destination.typ": did you mean "type"?`},
		{"[[destination]]\nname = \"a\"\nbuckett = \"disk\"\n", `unknown key "destination.buckett": did you mean "bucket"?`},
		{"[retentoin]\ndays = 7\n", `unknown key "retentoin": did you mean "retention"?`},
		{"keep_free = \"1GiB\"\n", `unknown key "keep_free": keep_free belongs in [snapshot]`},
		{"[mail]\nto = \"a@example.org\"\n", `line 2, column 6: mail.to is text; write a list, as ["one", "two"]`},
		{"parallel = \"2\"\n", `parallel is text; write a whole number without quotes, as 7`},
		{"parallel = 2.5\n", `parallel is a number with a fraction; write a whole number without quotes, as 7`},
		{"[limits]\nmax_duration = 24\n", `limits.max_duration: 24 has no unit: write a duration in quotes, as "2h30m" or "30d"`},
		{"[limits]\nread_rate = []\n", `limits.read_rate is a list; write a size in quotes, as "512MiB"`},
		{"[snapshot]\nsize = []\n", `snapshot.size is a list; write a size in quotes, as "100%ORIGIN" or "10GiB"`},
		{"[[hook]]\ntimeout = 30\n", `hook #1.timeout: 30 has no unit: write a duration in quotes`},
		{"[mail]\ntls = \"startls\"\n", `mail.tls: "startls" is none of starttls, tls, none: did you mean "starttls"?`},
		{"[mail]\npassword = \"secret\"\n", `mail.password is text; write where it lies, as { file = "/etc/voltar/secret" }`},
		{"[select]\nactivate_inactive = \"yes\"\n", `select.activate_inactive is text; write true or false, without quotes`},
		{"[mail]\nserver = 1\n", `mail.server is a number; write text in quotes, as "text"`},
		{"mail = \"a\"\n", `mail is text; write a table, below a line [mail]`},
		{"destination = \"a\"\n", `destination is text; write tables, each below a line [[destination]]`},
		{"[archive]\nkeep_daily = 7\n", `line 2: unknown key "archive.keep_daily": daily belongs in [retention] or [destination.retention]`},
		{"[retention]\nkeep-daily = 7\n", `line 2: unknown key "retention.keep-daily": did you mean "daily"?`},
		{"days = 7\n", `line 1: unknown key "days": days belongs in [retention] or [destination.retention]`},
		{"[archive]\nlevel = default\n", `line 2, column 9: default lacks its quotes; write level = "default"`},
		{"[archive]\nlevel = 6\n", `line 2, column 9: archive.level is a number; write "fast", "default", "best" and "1" to "9", in quotes`},
		{"[[destination]]\nname = backups # comment\n", `line 2, column 8: backups lacks its quotes; write name = "backups"`},
		{"[retention]\nvanished_keep = 30d\n", `30d lacks its quotes; write vanished_keep = "30d"`},
		{"[snapshot]\nsize = 20%\n", `20% lacks its quotes; write size = "20%"`},
		{"[mail]\n\nto = operator@example.org\n", `line 3, column 6: operator@example.org is no list; write to = ["operator@example.org"]`},
		{"[retention]\ndays = seven\n", `days = seven cannot be read; write a whole number without quotes, as 7`},
		{"[select]\nactivate_inactive = yes\n", `activate_inactive = yes cannot be read; write true or false, without quotes`},
		{"[select]\ninclude = [\"a\"\n", `line 2`},
		{"[mail]\nhost = \"mail.example.org\"\n", `line 2: unknown key "mail.host": did you mean "server"?`},
		{"[mail]\nstate_dir = \"/x\"\n", `line 2: unknown key "mail.state_dir": state_dir belongs above the first [section]`},
		{"[[dump]]\nname = \"a\"\nparallel = 2\n", `line 3: unknown key "dump.parallel": parallel belongs above the first [section]`},
		{"[[retention]]\ndays = 7\n", `retention stands once: write [retention], with one bracket`},
		{"[[destination]]\nname = \"a\"\ntype = \"disk\"\npath = \"/proc/x\"\n", `/proc/x cannot keep backups`},
		{"[[destination]]\nname = \"a\"\ntype = \"disk\"\npath = \"/var/lib/voltar\"\n", `voltar's own state lies in /var/lib/voltar`},
		{"[retention]\ndays = 9223372036854775807\n", `line 2: retention.days: 9223372036854775807 is more than 36500`},
	} {
		_, err := Parse([]byte(c.file))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v\nwant %s", c.file, err, c.want)
		}
		for _, go_ := range []string{"struct", "config.", "[]string", "strconv"} {
			if err != nil && strings.Contains(err.Error(), go_) {
				t.Errorf("%q: %v has Go's words", c.file, err)
			}
		}
	}
}

// An error that wraps two is one, and keeps its words.
func TestTheFileIsNamedOnceForEachError(t *testing.T) {
	one := fmt.Errorf("key: %w: %w", errors.New("wrong"), errors.New("cause"))
	for err, want := range map[error]string{one: "f: key: wrong: cause", errors.Join(one, errors.New("two")): "f: key: wrong: cause\nf: two"} {
		if got := inFile("f", err).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// State within a destination's folder, or a destination within that of the state, disturbs nobody.
func TestStateMayLieBesideBackups(t *testing.T) {
	for _, path := range []string{"/var/lib", "/var/lib/voltar/backups"} {
		if _, err := Parse([]byte("[[destination]]\nname = \"a\"\ntype = \"disk\"\npath = \"" + path + "\"\n")); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}
