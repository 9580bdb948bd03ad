package main

import "testing"

func TestParseBeside(t *testing.T) {
	for text, want := range map[string]string{
		"vg/b": "volume  ", "vg/b=new/c": "volume new/c ", "vg/b=/dev/sdz": "device  /dev/sdz", "vg/b=/dev/mapper/a=b": "device  /dev/mapper/a=b",
		"b": "", "vg/b=": "", "vg/b=c": "", "@dump/x": "", "vg/b=@dump/x": "", "": "",
	} {
		beside, err := parseBeside(text)
		got := ""
		if err == nil {
			got = string(beside.Target.Kind) + " "
			if beside.Target.LV != "" {
				got += beside.Target.VG + "/" + beside.Target.LV
			}
			got += " " + beside.Target.Path
			if beside.Volume.String() != "vg/b" {
				t.Errorf("%q is of %s", text, beside.Volume)
			}
		}
		if got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestShellWord(t *testing.T) {
	for word, want := range map[string]string{"/etc/voltar.toml": "/etc/voltar.toml", "two words": "'two words'", "it's": `'it'\''s'`, "-": "-", "$(id)": "'$(id)'"} {
		if got := shellWord(word); got != want {
			t.Errorf("%q becomes %s", word, got)
		}
	}
}
