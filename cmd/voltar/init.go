package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"voltar/internal/config"
	"voltar/internal/say"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "write a configuration with comments and safe defaults",
		UsageText: "voltar init\n" +
			"voltar init --config /etc/voltar/second.toml\n",
		Description: "Writes " + config.DefaultPath + ", or the file of --config. Never overwrites an existing file.",
		Action:      func(c *cli.Context) error { return a.init(cmp.Or(readCommon(c).config, config.DefaultPath)) },
	}
}

func (a *app) init(file string) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return say.AsRoot(say.WithHint(fmt.Errorf("cannot make the folder of %s: %w", file, err),
			"name a file in a folder that there can be: --config FILE"))
	}
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return usageError(say.WithHint(fmt.Errorf("%s exists already and was not changed", file), fmt.Sprintf(
			"edit it, and try it with `voltar check --config %s`; `voltar init --config FILE` writes another", file)))
	}
	if err != nil {
		return say.AsRoot(err)
	}
	_, err = f.WriteString(config.Sample)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file))
	}
	say.Printf(a.stdout, "Wrote %s.\nSet where backups go and who gets the mail, then try:\n  voltar check\n  voltar run --dry-run\n", file)
	return nil
}
