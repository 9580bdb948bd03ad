package lvm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"voltar/internal/hostcmd"
)

// The columns asked for, each known to lvm2 2.03 from its beginning. None of them may belong to segments, or lvm2
// would answer with a row for every segment.
const (
	vgColumns = "vg_name,vg_uuid,vg_size,vg_free,vg_extent_size,vg_tags,vg_shared,vg_clustered,vg_systemid,vg_exported," +
		"vg_partial,vg_lock_type,vg_permissions,vg_missing_pv_count"
	pvColumns = "pv_name,pv_uuid,vg_uuid,pv_major,pv_minor,pv_missing,pv_duplicate"
	lvColumns = "lv_uuid,lv_name,vg_name,vg_uuid,lv_size,lv_attr,lv_layout,lv_role,lv_device_open,lv_tags,origin," +
		"origin_uuid,origin_size,pool_lv,pool_lv_uuid,lv_skip_activation,lv_kernel_major,lv_kernel_minor,lv_path,lv_dm_path," +
		"lv_parent,lv_merging,lv_converting,lv_health_status,lv_snapshot_invalid,data_percent,metadata_percent," +
		"lv_metadata_size,lv_suspended,lv_when_full,lv_permissions,lv_check_needed"

	// messageMark stands before each message, and each line of a report. What lvm2 says before it has read our settings, or when it
	// is done with them, has none.
	messageMark = "voltar: "

	// reportConfig undoes what a host's lvm.conf may say about the looks of reports (lvmreport(7), lvm.conf(5)): JSON that
	// is not quoted, or that has a prefix before each line, is none. A report changes nothing, backups of metadata included.
	reportConfig = `report{mark_hidden_devices=1 list_item_separator="," compact_output=0 compact_output_cols="" prefixes=0 ` +
		`quoted=1 columns_as_rows=0 binary_values_as_numeric=0 buffered=1 two_word_unknown_device=0} ` +
		`log{prefix="` + messageMark + `" command_names=0 indent=0 verbose=0 report_command_log=0} backup{archive=0 backup=0}`
)

// reportEnv has lvm2 write the report alone to standard output, and everything else to standard error.
var reportEnv = []string{"LVM_REPORT_FD=1", "LVM_OUT_FD=2", "LVM_ERR_FD=2", "LVM_COMMAND_PROFILE="}

func reportArgs(more ...string) []string {
	args := []string{"-a", "--config", reportConfig, "--reportformat", "json", "--units", "b", "--nosuffix"}
	return append(args, more...)
}

// Inventory reports every volume group and logical volume that this host sees, those of other hosts included. Each
// group and its volumes are read under one lock.
func (c *Client) Inventory(ctx context.Context) (Inventory, error) {
	args := append([]string{"fullreport", "--foreign", "--shared"}, reportArgs(
		"--configreport", "vg", "-o", vgColumns, "--configreport", "pv", "-o", pvColumns, "--configreport", "lv", "-o", lvColumns,
		// fullreport always has all five sections; these two are kept short.
		"--configreport", "seg", "-o", "seg_start",
		"--configreport", "pvseg", "-o", "pvseg_start")...)
	inv, err := c.report(ctx, "lvm", args)
	if err != nil {
		return Inventory{}, fmt.Errorf("read the volumes of this host: %w", err)
	}
	if err := c.markForeign(ctx, inv.VGs); err != nil {
		return Inventory{}, fmt.Errorf("read the volumes of this host: %w", err)
	}
	c.noteBounds(inv)
	return inv, nil
}

// ask runs a command that changes nothing. One that does not end in its time is ended and tried again: a path to a disk may
// be on its way to another.
func (c *Client) ask(ctx context.Context, name string, args []string) (hostcmd.Result, error) {
	cmd := hostcmd.Cmd{Name: name, Args: args, Env: append(slices.Clip(c.env), reportEnv...), Timeout: c.reportTimeout}
	for attempt := 1; ; attempt++ {
		res, err := c.run.Run(ctx, cmd)
		res.Stdout, res.Stderr = withoutMark(res.Stdout), []byte(messages(string(res.Stderr)))
		var failure *hostcmd.Error
		if errors.As(err, &failure) {
			failure.Stderr = messages(failure.Stderr)
		}
		if failure == nil || failure.TimedOut == 0 {
			return res, err
		}
		if attempt == reportAttempts || failure.PID != 0 || sleep(ctx, c.retryDelay) != nil {
			return res, c.explainSlow(fmt.Errorf("after %d tries: %w", attempt, err))
		}
	}
}

// withoutMark takes the mark from each line of a report.
func withoutMark(report []byte) []byte {
	report = bytes.TrimPrefix(report, []byte(messageMark))
	return bytes.ReplaceAll(report, []byte("\n"+messageMark), []byte("\n"))
}

// messages returns what a reporting command had to say, of what it wrote to standard error. With log/verbose in the host's
// lvm.conf it tells there how it starts and ends, each time, while our settings are not in force: of that only warnings count.
func messages(written string) string {
	chatty := strings.Contains(written, "Logging initialised at ")
	var said strings.Builder
	for line := range strings.Lines(written) {
		message, marked := strings.CutPrefix(line, messageMark)
		if marked || !chatty || strings.HasPrefix(strings.TrimSpace(line), "WARNING") {
			said.WriteString(message)
		}
	}
	return said.String()
}

// report runs a reporting command. lvm2 ends with status 5 when one of many things could not be read, after a whole
// report of the rest: such a report counts, but is not complete.
func (c *Client) report(ctx context.Context, name string, args []string) (Inventory, error) {
	res, runErr := c.ask(ctx, name, args)
	if runErr != nil && hostcmd.ExitCode(runErr) != 5 {
		return Inventory{}, runErr
	}
	inv, err := ParseReport(bytes.NewReader(res.Stdout))
	if err != nil {
		return Inventory{}, errors.Join(runErr, err)
	}
	if runErr != nil && len(inv.VGs)+len(inv.Volumes) == 0 {
		return Inventory{}, runErr
	}
	inv.Incomplete = runErr != nil
	inv.Warnings = joinLines(inv.Warnings, string(res.Stderr))
	return inv, nil
}

// maxWarnings bounds the lines that are kept of what lvm2 says; a host with hundreds of missing disks has thousands.
const maxWarnings = 40

// joinLines returns the lines of texts, each once and without white space around it.
func joinLines(texts ...string) string {
	var lines []string
	for line := range strings.Lines(strings.Join(texts, "\n")) {
		if line = strings.TrimSpace(line); line != "" && !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	if more := len(lines) - maxWarnings; more > 0 {
		lines = append(lines[:maxWarnings], fmt.Sprintf("and %d lines more", more))
	}
	return strings.Join(lines, "\n")
}

// markForeign compares the groups' system ids with this host's, which is asked for only when a group has one.
func (c *Client) markForeign(ctx context.Context, vgs []VG) error {
	if !slices.ContainsFunc(vgs, func(vg VG) bool { return vg.SystemID != "" }) {
		return nil
	}
	res, err := c.ask(ctx, "lvm", []string{"systemid", "--config", reportConfig})
	if err != nil {
		return err
	}
	_, own, found := strings.Cut(string(res.Stdout), "system ID:")
	if !found {
		return fmt.Errorf("cannot understand lvm systemid: %.80q", res.Stdout)
	}
	own = strings.TrimSpace(own)
	for i := range vgs {
		vgs[i].Foreign = vgs[i].SystemID != "" && vgs[i].SystemID != own
	}
	return nil
}

// Lookup reports one logical volume, or an error that wraps ErrVGNotFound or ErrNotFound.
func (c *Client) Lookup(ctx context.Context, vg, name string) (Volume, error) {
	inv, err := c.report(ctx, "lvs", reportArgs("-o", lvColumns, vg+"/"+name))
	if err == nil && !inv.Incomplete {
		return inv.Volume(vg, name)
	}
	if err == nil {
		if v, findErr := inv.Volume(vg, name); findErr == nil {
			return v, nil
		}
		err = fmt.Errorf("lvs: %s", inv.Warnings)
	}
	if ctx.Err() != nil || hostcmd.ExitCode(err) != 5 {
		return Volume{}, fmt.Errorf("find %s/%s: %w", vg, name, err)
	}
	// lvs has one status for "not there" and "could not look". Only a whole list of names can say that it is gone.
	all, listErr := c.names(ctx)
	if listErr != nil {
		return Volume{}, fmt.Errorf("find %s/%s: %w", vg, name, errors.Join(err, listErr))
	}
	if _, findErr := all.Volume(vg, name); findErr != nil {
		return Volume{}, findErr
	}
	return Volume{}, fmt.Errorf("find %s/%s: %w", vg, name, err)
}

// names lists all groups and volumes without asking the kernel for their state. It fails rather than miss one.
func (c *Client) names(ctx context.Context) (Inventory, error) {
	inv, err := c.report(ctx, "lvm", append([]string{"fullreport"}, reportArgs(
		"--configreport", "vg", "-o", "vg_name,vg_uuid", "--configreport", "lv", "-o", "lv_name,lv_uuid,vg_name,vg_uuid",
		"--configreport", "pv", "-o", "pv_name", "--configreport", "seg", "-o", "seg_start",
		"--configreport", "pvseg", "-o", "pvseg_start")...))
	if err == nil && inv.Incomplete {
		err = fmt.Errorf("lvm: %s", inv.Warnings)
	}
	return inv, err
}

// reportStart is where lvm2's JSON begins.
var reportStart = regexp.MustCompile(`\{\s*"report"\s*:`)

// maxReportStarts bounds how often the beginning of a report is looked for in one text.
const maxReportStarts = 16

type reportDocument struct {
	Report []struct {
		VG []map[string]cell `json:"vg"`
		PV []map[string]cell `json:"pv"`
		LV []map[string]cell `json:"lv"`
	} `json:"report"`
}

// ParseReport reads a report of lvs, vgs or fullreport in lvm2's json or json_std format. Columns that identify a
// row must be there; others may be missing. Text around the report is none of it and becomes Warnings.
func ParseReport(r io.Reader) (Inventory, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return Inventory{}, fmt.Errorf("cannot read lvm2's report: %w", err)
	}
	doc, around, err := findReport(text)
	if err != nil {
		return Inventory{}, fmt.Errorf("cannot understand lvm2's report: %w", err)
	}
	inv, err := doc.inventory()
	inv.Warnings = around
	return inv, err
}

// findReport returns the first report in a text that can be decoded, and what stands around it.
func findReport(text []byte) (doc reportDocument, around string, err error) {
	starts := reportStart.FindAllIndex(text, maxReportStarts)
	if len(starts) == 0 {
		return doc, "", fmt.Errorf("there is none in %.200q", text)
	}
	var failures []error
	for _, at := range starts {
		doc = reportDocument{}
		dec := json.NewDecoder(bytes.NewReader(text[at[0]:]))
		if err := dec.Decode(&doc); err != nil {
			failures = append(failures, err)
			continue
		}
		rest := text[at[0]+int(dec.InputOffset()):]
		if reportStart.Match(rest) {
			return doc, "", errors.New("another report stands after its end")
		}
		if doc.Report == nil {
			return doc, "", errors.New("it has no part named report")
		}
		return doc, joinLines(string(text[:at[0]]), string(rest)), nil
	}
	return doc, "", errors.Join(failures...)
}

func (doc reportDocument) inventory() (Inventory, error) {
	var inv Inventory
	for _, part := range doc.Report {
		for _, row := range part.VG {
			vg, err := parseVG(row)
			if err != nil {
				return Inventory{}, fmt.Errorf("cannot understand lvm2's report: volume group %q: %w", vg.Name, err)
			}
			inv.VGs = append(inv.VGs, vg)
		}
		for _, row := range part.PV {
			pv, err := parsePV(row)
			if err != nil {
				return Inventory{}, fmt.Errorf("cannot understand lvm2's report: physical volume %q: %w", pv.Name, err)
			}
			inv.PVs = append(inv.PVs, pv)
		}
		for _, row := range part.LV {
			v, err := parseVolume(row)
			if err != nil {
				return Inventory{}, fmt.Errorf("cannot understand lvm2's report: volume %q: %w", v.String(), err)
			}
			inv.Volumes = append(inv.Volumes, v)
		}
	}
	return inv, nil
}

func parseVG(cells map[string]cell) (VG, error) {
	r := row{cells: cells}
	vg := VG{
		Name:        r.required("vg_name"),
		UUID:        r.required("vg_uuid"),
		SizeBytes:   r.number("vg_size"),
		FreeBytes:   r.number("vg_free"),
		ExtentBytes: r.number("vg_extent_size"),
		Tags:        r.list("vg_tags"),
		Shared:      r.flag("vg_shared"),
		LockType:    r.text("vg_lock_type"),
		Clustered:   r.flag("vg_clustered"),
		SystemID:    r.text("vg_systemid"),
		Exported:    r.flag("vg_exported"),
		Partial:     r.flag("vg_partial"),
		MissingPVs:  r.number("vg_missing_pv_count"),
		ReadOnly:    strings.HasPrefix(r.text("vg_permissions"), "read-only"),
	}
	if vg.LockType == "none" {
		vg.LockType = ""
	}
	return vg, r.err
}

func parsePV(cells map[string]cell) (PV, error) {
	r := row{cells: cells}
	return PV{
		Name: r.text("pv_name"), UUID: r.text("pv_uuid"), VGUUID: r.text("vg_uuid"),
		Dev:       Dev{Major: r.device("pv_major"), Minor: r.device("pv_minor")},
		Missing:   r.flag("pv_missing"),
		Duplicate: r.flag("pv_duplicate"),
	}, r.err
}

func parseVolume(cells map[string]cell) (Volume, error) {
	r := row{cells: cells}
	name := r.required("lv_name")
	hidden := strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]")
	v := Volume{
		VG:              r.required("vg_name"),
		Name:            strings.Trim(name, "[]"),
		UUID:            r.required("lv_uuid"),
		VGUUID:          r.text("vg_uuid"),
		SizeBytes:       r.number("lv_size"),
		Layout:          r.list("lv_layout"),
		Roles:           r.list("lv_role"),
		Attr:            r.text("lv_attr"),
		Tags:            r.list("lv_tags"),
		Open:            r.flag("lv_device_open"),
		Suspended:       r.flag("lv_suspended"),
		ActivationSkip:  r.flag("lv_skip_activation"),
		Merging:         r.flag("lv_merging"),
		Converting:      r.flag("lv_converting"),
		Origin:          strings.Trim(r.text("origin"), "[]"),
		OriginUUID:      r.text("origin_uuid"),
		OriginBytes:     r.number("origin_size"),
		Pool:            strings.Trim(r.text("pool_lv"), "[]"),
		PoolUUID:        r.text("pool_lv_uuid"),
		Parent:          strings.Trim(r.text("lv_parent"), "[]"),
		KernelMajor:     r.device("lv_kernel_major"),
		KernelMinor:     r.device("lv_kernel_minor"),
		Path:            r.text("lv_path"),
		DMPath:          r.text("lv_dm_path"),
		Health:          r.text("lv_health_status"),
		SnapshotInvalid: r.flag("lv_snapshot_invalid"),
		ValidityKnown:   r.known("lv_snapshot_invalid"),
		DataPercent:     r.percent("data_percent"),
		MetadataPercent: r.percent("metadata_percent"),
		MetadataBytes:   r.number("lv_metadata_size"),
		WhenFull:        r.text("lv_when_full"),
		CheckNeeded:     r.flag("lv_check_needed"),
	}
	v.Kind = kindOf(v.Layout, v.Roles)
	v.Internal = hidden || (slices.Contains(v.Roles, "private") && !v.IsPool())
	v.Active = v.KernelMajor >= 0 && v.KernelMinor >= 0
	v.ReadOnly = strings.HasPrefix(r.text("lv_permissions"), "read-only") || (len(v.Attr) > 1 && v.Attr[1] == 'r')
	return v, r.err
}

// kindOf follows lvm2's lv_layout_and_role: from general to special, a pool's layout ending in "pool".
func kindOf(layout, roles []string) Kind {
	has := func(word string) bool { return slices.Contains(layout, word) }
	switch {
	case slices.Contains(roles, "thicksnapshot"):
		return KindSnapshot
	case has("pool") && has("thin"):
		return KindThinPool
	case has("pool") && has("cache"):
		return KindCachePool
	case has("pool") && has("vdo"):
		return KindVDOPool
	case has("thin"):
		return KindThin
	case has("raid") && len(layout) > 1:
		return Kind(layout[1])
	case len(layout) > 0:
		return Kind(layout[0])
	}
	return KindUnknown
}

// cell is one value of a report: text in the json format; numbers, lists and null too in json_std.
type cell struct {
	text string
	list []string // of a JSON array
	kind byte     // 't' for text, 'n' for a number, 'l' for a list, '0' for null
}

func (c *cell) UnmarshalJSON(data []byte) error {
	switch {
	case len(data) == 0:
		return errors.New("empty value")
	case bytes.Equal(data, []byte("null")):
		*c = cell{kind: '0'}
		return nil
	case data[0] == '"':
		c.kind = 't'
		return json.Unmarshal(data, &c.text)
	case data[0] == '[':
		c.kind = 'l'
		return json.Unmarshal(data, &c.list)
	case data[0] == '-' || (data[0] >= '0' && data[0] <= '9'):
		*c = cell{kind: 'n', text: string(data)}
		return nil
	}
	return fmt.Errorf("a value that is neither text, number nor list: %.40s", data)
}

// row reads the cells of one row and keeps the first error.
type row struct {
	cells map[string]cell
	err   error
}

func (r *row) fail(column, what string) {
	if r.err == nil {
		r.err = fmt.Errorf("column %s %s", column, what)
	}
}

// text returns a column that is text; an absent one is empty.
func (r *row) text(column string) string {
	c := r.cells[column]
	if c.kind == 'l' {
		r.fail(column, "is a list")
	}
	return c.text
}

func (r *row) required(column string) string {
	s := r.text(column)
	if s == "" {
		r.fail(column, "is missing or empty")
	}
	return s
}

// list returns a column that is a list, as JSON's or parted by commas.
func (r *row) list(column string) []string {
	c := r.cells[column]
	if c.kind == 'l' {
		return c.list
	}
	if c.text == "" {
		return nil
	}
	return strings.Split(c.text, ",")
}

// number returns a size or count; an absent one is 0.
func (r *row) number(column string) int64 {
	s := strings.TrimRight(r.text(column), "bB")
	if s == "" {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		r.fail(column, fmt.Sprintf("is no number: %.40q", s))
		return 0
	}
	return n
}

// device returns a major or minor number; an absent one is -1.
func (r *row) device(column string) int {
	s := r.text(column)
	if s == "" {
		return -1
	}
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < -1 {
		r.fail(column, fmt.Sprintf("is no device number: %.40q", s))
		return -1
	}
	return int(n)
}

// percent returns a percentage; an absent one is Unknown.
func (r *row) percent(column string) float64 {
	s := strings.TrimSuffix(r.text(column), "%")
	if s == "" {
		return Unknown
	}
	p, err := strconv.ParseFloat(s, 64)
	if err == nil && p == -1 { // json_std's word for a percentage that there is none of
		return Unknown
	}
	if err != nil || math.IsNaN(p) || math.IsInf(p, 0) || p < 0 {
		r.fail(column, fmt.Sprintf("is no percentage: %.40q", s))
		return Unknown
	}
	return p
}

// flag returns whether a column is set: lvm2 writes its own word, or 1, and "unknown", or -1, where it cannot tell.
func (r *row) flag(column string) bool {
	s := r.text(column)
	return s != "" && s != "0" && r.known(column)
}

// known says that a flag's value is one that lvm2 could tell.
func (r *row) known(column string) bool {
	c, ok := r.cells[column]
	return ok && c.kind != '0' && c.text != "unknown" && c.text != "-1"
}
