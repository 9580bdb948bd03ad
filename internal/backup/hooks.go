package backup

import (
	"context"
	"strings"

	"voltar/internal/quiesce"
	"voltar/report"
)

// runHooks runs the hooks of a phase up to the snapshot for one volume, in the order of the configuration, until one
// fails it.
func (m *member) runHooks(ctx context.Context, phase quiesce.Phase) error {
	for _, h := range m.settings.Hooks {
		if h.Phase != phase {
			continue
		}
		if err := m.run.Quieter.RunHook(ctx, h, m.hookEnv(phase, "")); err != nil {
			if h.Must {
				return err
			}
			m.quiet.Miss(err, false)
		}
	}
	return nil
}

// runLastHooks runs the hooks for a volume that is done, whatever became of it: what those before it began may have to
// be ended. Their failures are warnings, as the backup stands or has failed already.
func (m *member) runLastHooks(ctx context.Context) {
	status := m.status(ctx)
	ctx = context.WithoutCancel(ctx)
	for _, h := range m.settings.Hooks {
		if h.Phase != quiesce.PhaseAfter && (h.Phase != quiesce.PhaseOnError || m.failure == nil) {
			continue
		}
		if err := m.run.Quieter.RunHook(ctx, h, m.hookEnv(h.Phase, status)); err != nil {
			m.warnOf(err)
		}
	}
}

// hookEnv tells a hook what it runs for.
func (m *member) hookEnv(phase quiesce.Phase, status report.VolumeStatus) []string {
	env := append(m.run.hookEnv(phase), "VOLTAR_VOLUME="+m.name(), "VOLTAR_GROUP="+m.settings.Group,
		"VOLTAR_BACKUP="+m.line.Backup, "VOLTAR_STATUS="+string(status))
	if m.device != "" {
		env = append(env, "VOLTAR_SNAPSHOT="+m.device)
	}
	if m.failure != nil {
		env = append(env, "VOLTAR_ERROR="+report.ProblemOf(m.failure).Message)
	}
	return env
}

func (r *run) hookEnv(phase quiesce.Phase) []string {
	return []string{"VOLTAR_PHASE=" + string(phase), "VOLTAR_RUN=" + r.id, "VOLTAR_HOST=" + r.opts.Host.Name, "VOLTAR_CONFIG=" + r.opts.ConfigPath}
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
