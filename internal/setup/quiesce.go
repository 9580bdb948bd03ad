package setup

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"voltar/archive"
	"voltar/internal/backup"
	"voltar/internal/catalog"
	"voltar/internal/config"
	"voltar/internal/guests"
	"voltar/internal/quiesce"
	"voltar/internal/quiet"
	"voltar/lvm"
)

// LVM tags that set for one volume what the file sets for many.
const (
	tagGroup  = "voltar.group="
	tagFreeze = "voltar.freeze="
)

// findGuests is how an engine finds the guests of this host; nil where the configuration wants nothing to be known of them.
func (s *Setup) findGuests() func(context.Context, lvm.Inventory) (guests.Found, []lvm.Trouble) {
	by := s.Config.FoundBy
	if !by.Libvirt && !by.Proxmox && len(by.Command) == 0 {
		return nil
	}
	from := guests.Sources{Libvirt: by.Libvirt, Proxmox: by.Proxmox, Command: by.Command, Runner: s.Runner}
	return func(ctx context.Context, inventory lvm.Inventory) (guests.Found, []lvm.Trouble) {
		found, troubles := guests.Find(ctx, from, inventory)
		s.guests.Store(&found)
		return found, troubles
	}
}

// matches tells whether a pattern of the configuration means a volume: by its name, or with "@guest/" before it, by that of the guest.
func (s *Setup) matches(pattern string, v lvm.Volume) bool {
	name, isGuest := strings.CutPrefix(pattern, catalog.GuestPrefix)
	if !isGuest {
		return config.MatchVolume(pattern, v.VG, v.Name)
	}
	found := s.guests.Load()
	return found != nil && found.Matches(name, v)
}

// matchesGroup tells whether a pattern of the configuration means a volume group.
func matchesGroup(pattern, vg string) bool { return config.MatchVolume(pattern, "", vg) }

// Guests are the guests of this host, as far as the configuration wants them to be known.
func (s *Setup) Guests(ctx context.Context, inventory lvm.Inventory) guests.Found {
	find := s.findGuests()
	if find == nil {
		return guests.Found{}
	}
	found, _ := find(ctx, inventory) // what troubles there are is told by `voltar check`
	return found
}

// guestFreezes is what makes a guest quiet that was found: the [[guest]] of its name, or else its own means. libvirt keeps the connection
// to the agent of its machines, so it has to ask; for a container, processes are frozen, and the kernel freezes its filesystems while LVM
// makes their snapshots.
func (s *Setup) guestFreezes(g guests.Guest) []quiesce.Freeze {
	for _, name := range []string{g.Name, g.Alias, g.ID} {
		if _, found := s.Config.Guest(name); found && name != "" {
			return s.freezes([]string{name})
		}
	}
	f := quiesce.Freeze{Name: g.Name, Must: s.opts.MustBeQuiet}
	switch {
	case !g.Running:
		return nil
	case g.Kind == guests.KindLibvirt && g.HasAgent:
		f.Method, f.Domain = quiesce.MethodVirsh, g.ID
	case g.Kind == guests.KindMachine && g.HasAgent:
		f.Method, f.Socket = quiesce.MethodAgent, g.Socket
	case g.Kind == guests.KindContainer:
		f.Method = quiesce.MethodCommand
		f.FreezeCommand = []string{"lxc-freeze", "-n", g.ID}
		f.ThawCommand = []string{"sh", "-c", thawContainer, "sh", g.ID}
	default:
		return nil
	}
	return []quiesce.Freeze{f}
}

// thawContainer fails if the container was not frozen any more. lxc-unfreeze alone is content with that.
const thawContainer = `state=$(lxc-info -n "$1" -s -H); lxc-unfreeze -n "$1" && [ "$state" = FROZEN ]`

// addQuiescing enters what the configuration says of hooks, groups and sources in the engine's options.
func (s *Setup) addQuiescing(o *backup.Options) {
	o.GuestUnits.Together = s.Config.FoundBy.Consistency != config.ConsistencyOff
	if s.Config.FoundBy.Consistency == config.ConsistencyFreeze {
		o.GuestUnits.Freezes = s.guestFreezes
	}
	for _, g := range s.Config.Groups {
		o.Groups = append(o.Groups, backup.Group{Name: g.Name, Freeze: s.freezes(g.Freeze), GoOn: g.OnFailure == config.FailureGoOn})
	}
	for _, h := range s.Config.Hooks {
		if h.Scope == "run" {
			o.Hooks = append(o.Hooks, hook(h))
		}
	}
	for _, d := range s.Config.Dumps {
		if len(d.Volumes) == 0 {
			o.Sources.Dumps = append(o.Sources.Dumps, s.dump(d))
		}
	}
	for _, d := range s.Config.Streams {
		o.Sources.Streams = append(o.Sources.Streams, s.dump(d))
	}
	for _, d := range s.Config.Directories {
		o.Sources.Directories = append(o.Sources.Directories, backup.Directory{
			Name: d.Name, Path: d.Path, RequireMount: d.RequireMount, Level: s.level(d.Level),
			Exclude: slices.Concat(s.Config.Archive.Exclude, d.Exclude),
		})
	}
}

// volumeQuiescing enters what the configuration and the tags say of one volume. freeze are the guests that its
// [[volume]] entries name.
func (s *Setup) volumeQuiescing(v lvm.Volume, freeze []string, settings *backup.Settings) {
	matches := func(pattern string) bool { return s.matches(pattern, v) }
	for _, g := range s.Config.Groups {
		if slices.ContainsFunc(g.Volumes, matches) {
			settings.Group = g.Name
		}
	}
	for _, tag := range v.Tags {
		if name, found := strings.CutPrefix(tag, tagGroup); found {
			settings.Group = name
		}
		if name, found := strings.CutPrefix(tag, tagFreeze); found && !slices.Contains(freeze, name) {
			freeze = append(freeze, name)
		}
	}
	settings.Freeze = s.freezes(freeze)
	for _, h := range s.Config.Hooks {
		if h.Scope != "run" && (len(h.Volumes) == 0 || slices.ContainsFunc(h.Volumes, matches)) {
			settings.Hooks = append(settings.Hooks, hook(h))
		}
	}
	for _, d := range s.Config.Dumps {
		if slices.ContainsFunc(d.Volumes, matches) {
			settings.Dumps = append(settings.Dumps, s.dump(d))
		}
	}
	if s.Config.EnableMySQLDump {
		for _, name := range freeze {
			if g, found := s.Config.Guest(name); found && g.Host != "" {
				settings.Dumps = append(settings.Dumps, s.dump(config.Dump{Name: name + ".mysql", Preset: quiesce.PresetMySQL, Guest: name}))
			}
		}
	}
}

// freezes are what guests stand for: their database first, then their filesystems. A name that no guest has, as a tag
// may give it, becomes a freeze that cannot be made, which the report then tells.
func (s *Setup) freezes(guests []string) []quiesce.Freeze {
	var list []quiesce.Freeze
	for _, name := range guests {
		if name == config.FreezeLocal {
			list = append(list, quiesce.Freeze{Name: quiet.FreezeHere, Method: quiesce.MethodLocal, Must: s.opts.MustBeQuiet})
			continue
		}
		g, found := s.Config.Guest(name)
		if !found {
			list = append(list, quiesce.Freeze{Name: name, Method: "of no [[guest]]", Must: s.opts.MustBeQuiet})
			continue
		}
		f := quiesce.Freeze{
			Name: g.Name, Method: quiesce.Method(g.Method), Mountpoints: g.Mountpoints, Remote: remote(g),
			Socket: g.Socket, Domain: g.Domain, FreezeCommand: g.Freeze, ThawCommand: g.Thaw,
			Deadline: g.Deadline.Span(), Timeout: g.Timeout.Span(), Retries: g.Retries,
			Must: g.OnFailure == config.FailureFail || s.opts.MustBeQuiet,
		}
		if g.Database != "" {
			database := f
			database.Method, database.Mountpoints, database.Client = quiesce.Method(g.Database), nil, g.Client
			list = append(list, database)
		}
		if g.Method != "none" {
			list = append(list, f)
		}
	}
	return list
}

func remote(g config.Guest) quiesce.Remote {
	return quiesce.Remote{Host: g.Host, Config: g.SSHConfig, Sudo: g.Sudo}
}

func hook(h config.Hook) quiesce.Hook {
	return quiesce.Hook{
		Name: h.Name, Phase: quiesce.Phase(h.Phase), Command: h.Argv(), Timeout: h.Timeout.Span(), Retries: h.Retries,
		Must: h.OnFailure != config.FailureGoOn,
	}
}

func (s *Setup) dump(d config.Dump) backup.Dump {
	dump := backup.Dump{Level: s.level(d.Level)}
	dump.Name, dump.Command, dump.Timeout, dump.Preset = d.Name, d.Command, d.Timeout.Span(), d.Preset
	if d.Preset != "" {
		dump.Command, dump.Trailer, _ = quiesce.PresetDump(d.Preset, d.Options) // checked when the file was read
	}
	if g, found := s.Config.Guest(d.Guest); found {
		dump.Remote = remote(g)
	}
	return dump
}

// level is one that the configuration gives, or its general one.
func (s *Setup) level(name string) archive.Level {
	level, _ := archive.ParseLevel(cmp.Or(name, s.Config.Archive.Level)) // checked when the file was read
	return level
}
