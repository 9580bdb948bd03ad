package recipe

const pageText = `How to bring this backup back by hand

{{if .IsVolume}}This folder is a backup of the logical volume {{.Source.VG}}/{{.Source.Name}} of host {{.Host.Name}}{{else -}}
This folder is a backup of the {{.Source.Kind}} {{.Source.Name}} of host {{.Host.Name}}{{end}},
as it was at {{.Time.Format "2006-01-02 15:04:05"}} UTC.
{{if .IsStream}}Any Linux will do: the lines that begin with
{{- else}}With voltar at hand, "{{.Command}}" does all of this. Without it, any Linux does: the lines that begin with
{{- end}}
four spaces are commands, to be run as root in this folder, from top to bottom.
{{if eq .Status "damaged"}}
PART OF THE DATA COULD NOT BE READ when this backup was made; {{.Details}} lists what is missing.
{{end}}
{{if .IsStream}}Needed: gzip and coreutils{{.AlsoNeeded}}.
{{- else if .IsVolume}}Needed: GNU tar, gzip, coreutils, util-linux (sfdisk, losetup){{.AlsoNeeded}}. busybox tar is
no substitute: it restores sparse files wrongly. Use a UTF-8 locale.
{{- else}}Needed: GNU tar, gzip and coreutils{{.AlsoNeeded}}. busybox tar is no substitute: it restores
sparse files wrongly. Use a UTF-8 locale.
{{- end}}

1. Check that the files are whole.

    set -eu
    sha1sum -c {{.Checksum}}
{{- if .Signed}}

   Who made them? The manifest is signed, and vouches for the list of sums. Have the public key of the host that made this
   backup in a file, from where it is kept safe, not from here. This fails when somebody else made the backup or changed it:

    PUBLIC_KEY=${PUBLIC_KEY:-/etc/voltar/sign_key.pub}
    if [ -e "$PUBLIC_KEY" ]; then
    SIGNERS=$(mktemp)
    echo "voltar $(cat "$PUBLIC_KEY")" > "$SIGNERS"
    ssh-keygen -Y verify -f "$SIGNERS" -I voltar -n {{.Namespace}} -s manifest.json.sig < manifest.json
    rm "$SIGNERS"
    grep -q "$(sha256sum < {{.Checksum}} | cut -d ' ' -f 1)" manifest.json
    else echo "there is no $PUBLIC_KEY: it is not known who made this backup" >&2; fi

   The folder has to be that of the host, the name and the time above: one backup can be put in the place of another.
{{- end}}
{{- if .IsEncrypted}}

   What ends in .age is encrypted to {{.Recipients}}.
   Have the secret key of one of them in a file, here key.txt. This fails with any other:

    IDENTITY=${IDENTITY:-key.txt}
    {{.TryKey}}
{{- end}}
{{if .IsVolume}}
2. Choose the target, a block device. EVERYTHING ON IT IS LOST. Stop the guest that uses it. To make the volume anew:

   {{.Make}}

   The commands below restore to $TARGET; set it beforehand for another device of at least {{.SizeBytes}} bytes.

    TARGET=${TARGET:-{{.Target}}}
    [ -e "$TARGET" ] || { echo "there is no $TARGET: make it, or set TARGET to another" >&2; exit 1; }
    MNT=$(mktemp -d)
{{- if .LoopSectors}}

   The table counts in sectors of {{.Table.SectorBytes}} bytes, so the target is used through a loop device that has them.

    DISK=$(losetup --find --show{{.LoopSectors}} "$TARGET")
{{- else}}
    DISK=$TARGET
{{- end}}
{{- if .Table}}

3. Write boot code and partition table.
{{range .Outside}}{{if .IsImage}}
    {{.Inflated}} | dd of="$DISK" bs=1M seek={{.OffsetBytes}} oflag=seek_bytes conv=notrunc,fsync status=none
{{- end}}{{end}}
{{- if .TableIsWhole}}

   sfdisk cannot write all of this table ({{.TableLosses}}).
   On a target of exactly {{.Source.SizeBytes}} bytes the lines above have brought it back, byte for byte; on any other, run:

   {{.Sfdisk}}
{{- else}}
    {{.Sfdisk}}
{{- end}}
{{- end}}

4. Fill {{if .Table}}the partitions{{else}}the volume{{end}}.{{- if .UsesMke2fs}}
   What mke2fs says of its mke2fs.conf is of no importance.
{{- end}}
{{range .Inside}}
   {{.Title}}
{{- range .Notes}}
   Note: {{.}}
{{- end}}
{{- if .IsFiles}}
{{range .Open}}
    {{.}}
{{- end}}
{{- range .Mkfs}}
    {{.}}
{{- end}}
{{- range .BootCode}}
    {{.}}
{{- end}}
    mount -t {{.Type}}{{.MountOptions}} "$LOOP" "$MNT"
{{- range .Grow}}
    {{.}}
{{- end}}
{{- range .MakeSubvolumes}}
    {{.}}
{{- end}}
{{- range .Unpack}}
    {{.}}
{{- end}}
{{- range .FinishSubvolumes}}
    {{.}}
{{- end}}
    umount "$MNT"
{{- range .MkfsLast}}
    {{.}}
{{- end}}
{{- range .Close}}
    {{.}}
{{- end}}
{{else if .IsSwap}}
{{range .Open}}
    {{.}}
{{- end}}
{{- range .Mkfs}}
    {{.}}
{{- end}}
{{- range .Close}}
    {{.}}
{{- end}}
{{else if .InPieces}}
{{range .Open}}
    {{.}}
{{- end}}
    {{.Inflated}} | dd of="$LOOP" bs=1M conv=notrunc,fsync status=none
{{- range .Close}}
    {{.}}
{{- end}}
{{else if .IsImage}}

    {{.Inflated}} | dd of="$TARGET" bs=1M seek={{.OffsetBytes}} oflag=seek_bytes conv=notrunc,fsync status=none
{{- if .HasTail}}
    {{.InflatedTail}} | dd of="$TARGET" bs=1M seek={{.TailOffset}} oflag=seek_bytes conv=notrunc,fsync status=none
{{- end}}
{{else}}
   Nothing is stored of it.
{{end}}{{end}}
5. Done. Let go of the target. Where it is a whole disk, partprobe has the kernel look at it again.
{{if .LoopSectors}}
    losetup -d "$DISK"
{{- end}}
    rmdir "$MNT"
    sync
{{- range .Held}}

   {{.}}
{{- end}}
{{- if .Dumps}}

6. Dumps, where they are wanted instead. Each goes into a server that runs.
{{range .DumpSteps}}
   {{.Title}}
{{range .Commands}}
   {{.}}
{{- end}}
{{end}}
{{- end}}
{{- if .Definition}}

{{if .Dumps}}7{{else}}6{{end}}. The machine{{.MachineName}}. Its definition was kept with each of its disks.
{{range .DefineMachine}}
   {{.}}
{{- end}}
{{end}}
{{else if .IsStream}}{{range .DumpSteps}}
2. {{.Title}}
{{range .Commands}}
    {{.}}
{{- end}}
{{end}}{{else}}
2. Set TARGET to the folder to fill. Files of the same names are replaced; what else it holds stays.
{{- range .FolderNotes}}
   Note: {{.}}
{{- end}}
{{range .FillFolder}}
    {{.}}
{{- end}}
{{end}}
{{- if not .IsStream}}
tar brings back neither sockets, nor what chattr sets, nor projects; the .index.gz files list them ("flags" and "project" of an entry).
{{if .IsEncrypted -}}
What is in an archive, without unpacking it:   age -d -i key.txt NAME.index.gz.age | zcat
One file:                                      age -d -i key.txt ARCHIVE.tar.gz.age | tar -C FOLDER -xzp PATH
{{else -}}
What is in an archive, without unpacking it:   zcat NAME.index.gz
One file:                                      tar -C FOLDER -xzpf ARCHIVE.tar.gz PATH   (as zcat shows it, without a slash in front)
{{end}}
{{- end}}`
