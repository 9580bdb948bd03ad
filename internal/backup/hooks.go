package backup

import (
	"context"
	"strings"

	"voltar/internal/quiesce"
	"voltar/report"
)

// runHooks runs the hooks of a phase up to the snapshot for one volume, in the order of the configuration, until one
// fails it.
func (c *candidate) runHooks(ctx context.Context, phase quiesce.Phase) error {
	for _, h := range c.settings.Hooks {
		if h.Phase != phase {
			continue
		}
		if err := c.run.Quieter.RunHook(ctx, h, c.hookEnv(phase, "")); err != nil {
			if h.Must {
				return err
			}
			c.quiet.Miss(err, false)
		}
	}
	return nil
}

// runLastHooks runs the hooks for a volume that is done, whatever became of it: what those before it began may have to
// be ended. Their failures are warnings, as the backup stands or has failed already.
func (c *candidate) runLastHooks(ctx context.Context) {
	status := c.status(ctx)
	ctx = context.WithoutCancel(ctx)
	for _, h := range c.settings.Hooks {
		if h.Phase != quiesce.PhaseAfter && (h.Phase != quiesce.PhaseOnError || c.failure == nil) {
			continue
		}
		if err := c.run.Quieter.RunHook(ctx, h, c.hookEnv(h.Phase, status)); err != nil {
			c.warnOf(err)
		}
	}
}

// hookEnv tells a hook what it runs for.
func (c *candidate) hookEnv(phase quiesce.Phase, status report.VolumeStatus) []string {
	env := append(c.run.hookEnv(phase), "VOLTAR_VOLUME="+c.name(), "VOLTAR_GROUP="+c.settings.Group,
		"VOLTAR_BACKUP="+c.line.Backup, "VOLTAR_STATUS="+string(status))
	if c.device != "" {
		env = append(env, "VOLTAR_SNAPSHOT="+c.device)
	}
	if c.failure != nil {
		env = append(env, "VOLTAR_ERROR="+report.ProblemOf(c.failure).Message)
	}
	return env
}

func (r *run) hookEnv(phase quiesce.Phase) []string {
	return []string{
		"VOLTAR_PHASE=" + string(phase), "VOLTAR_RUN=" + r.id, "VOLTAR_HOST=" + r.opts.Host.Name, "VOLTAR_CONFIG=" + r.opts.ConfigPath,
	}
}

// runHooks runs the hooks of the run as a whole. The error says that the run must not go on.
func (r *run) runHooks(ctx context.Context, phase quiesce.Phase) error {
	failed := r.done(func(v report.Volume) bool { return v.Status != report.VolumeOK })
	for _, h := range r.opts.Hooks {
		if h.Phase != phase || (phase == quiesce.PhaseOnError && len(failed) == 0) {
			continue
		}
		if err := r.Quieter.RunHook(ctx, h, append(r.hookEnv(phase), "VOLTAR_FAILED="+strings.Join(failed, " "))); err != nil {
			if h.Must && phase == quiesce.PhaseBefore {
				return err
			}
			r.warnOf(err)
		}
	}
	return nil
}

// endHooks runs the last hooks of the run, also when it was stopped.
func (r *run) endHooks(ctx context.Context) {
	ctx = context.WithoutCancel(ctx)
	_ = r.runHooks(ctx, quiesce.PhaseOnError) // of these phases nothing fails the run
	_ = r.runHooks(ctx, quiesce.PhaseAfter)
}
