package probe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// readerWriterAt is read and written at any place.
type readerWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

const (
	ntfsRecordMFT    = 0
	ntfsRecordBitmap = 6    // which clusters are in use
	ntfsAttrBitmap   = 0xb0 // of the MFT: which records are in use
	ntfsMirrorField  = 56   // of the boot sector: the cluster of the copy of the first four records
	ntfsBitmapStep   = 8    // bytes; the records that these stand for are the least that is added
	ntfsMostFiles    = 1 << 32
)

// MakeRoom makes room for so many files in the NTFS that mkfs.ntfs has just made on a device. mkfs gives it an MFT of 27
// records, one for each file, and leaves the rest to the driver. That of Linux 6.1, at least up to 6.1.192, never finds
// space for more (fs/ntfs3 reads a zone_max there that nobody sets), and says that no space is left after a few files.
//
// The table grows into what is free behind it, which is an eighth of a new filesystem, and no further: where that is too
// little for all the files, there is the driver again. The device is not flushed.
func MakeRoom(device readerWriterAt, files int64) error {
	fs, err := readNTFS(device)
	if err != nil {
		return err
	}
	n := fs.NTFS
	m, err := n.readMFT(device)
	if err != nil {
		return fmt.Errorf("read $MFT: %w", err)
	}
	// Some files take two: those with long names and much in their attributes.
	files = min(max(files, 0), ntfsMostFiles)
	if err := m.plan(device, files+files/8+256); err != nil {
		return fmt.Errorf("make room in $MFT: %w", err)
	}
	if m.clusters == m.data.clusters {
		return nil
	}
	for _, write := range []func(readerWriterAt) error{m.writeRecords, m.writeUsedRecords, m.writeUsedClusters, m.writeMFT} {
		if err := write(device); err != nil {
			return fmt.Errorf("make room in $MFT: %w", err)
		}
	}
	return nil
}

// clusterRun is where the data of an attribute lie that are in one piece.
type clusterRun struct{ cluster, clusters int64 }

// mft is the table of a new NTFS, as it is and as it will be.
type mft struct {
	*NTFS
	record     []byte // that of the table itself, without fix-ups
	mirror     int64  // cluster of its copy
	data       clusterRun
	used       clusterRun // the bitmap of its records
	usedBytes  int64
	allocation clusterRun // the bitmap of all clusters

	clusters, records int64      // that it will have
	newUsed           clusterRun // the bitmap that it will have
}

func (n *NTFS) readMFT(r io.ReaderAt) (*mft, error) {
	mirror := make([]byte, 8)
	if _, err := r.ReadAt(mirror, ntfsMirrorField); err != nil {
		return nil, err
	}
	m := &mft{NTFS: n, mirror: int64(min(binary.LittleEndian.Uint64(mirror), 1<<50))}
	if m.mirror <= 0 || m.mirror >= n.clusterCount() {
		return nil, invalid("the copy of the MFT at cluster %d", m.mirror)
	}
	var err error
	if m.record, err = n.record(r, ntfsRecordMFT); err != nil {
		return nil, err
	}
	bitmap, err := n.record(r, ntfsRecordBitmap)
	if err != nil {
		return nil, err
	}
	for _, x := range []struct {
		record []byte
		kind   uint32
		run    *clusterRun
	}{{m.record, ntfsAttrData, &m.data}, {m.record, ntfsAttrBitmap, &m.used}, {bitmap, ntfsAttrData, &m.allocation}} {
		if *x.run, err = n.onlyRun(attribute(x.record, x.kind)); err != nil {
			return nil, err
		}
	}
	m.usedBytes = int64(binary.LittleEndian.Uint64(attribute(m.record, ntfsAttrBitmap)[48:]))
	if m.data.cluster != n.MFTCluster || m.usedBytes < ntfsBitmapStep || m.usedBytes > m.used.clusters*n.ClusterBytes ||
		m.allocation.clusters*n.ClusterBytes*8 < n.clusterCount() {
		return nil, invalid("not as mkfs.ntfs makes it")
	}
	return m, nil
}

// clusterCount is how many there are; what is left of the last one belongs to none.
func (n *NTFS) clusterCount() int64 { return n.Sectors * int64(n.SectorBytes) / n.ClusterBytes }

// onlyRun reads where the data of an attribute lie, which must be in one piece.
func (n *NTFS) onlyRun(attr []byte) (clusterRun, error) {
	const header = 64
	if len(attr) < header || attr[8] != 1 || attr[16] != 0 {
		return clusterRun{}, invalid("an attribute is missing, or in several pieces")
	}
	pairs := attr[min(int(binary.LittleEndian.Uint16(attr[32:])), len(attr)):]
	if len(pairs) == 0 {
		return clusterRun{}, invalid("an attribute that lies nowhere")
	}
	sizeOfLength, sizeOfOffset := int(pairs[0]&0xf), int(pairs[0]>>4)
	end := 1 + sizeOfLength + sizeOfOffset
	if sizeOfLength == 0 || sizeOfLength > 6 || sizeOfOffset == 0 || sizeOfOffset > 6 || end >= len(pairs) || pairs[end] != 0 {
		return clusterRun{}, invalid("an attribute in several pieces")
	}
	x := clusterRun{cluster: littleEndian(pairs[1+sizeOfLength : end]), clusters: littleEndian(pairs[1 : 1+sizeOfLength])}
	if x.cluster <= 0 || x.clusters <= 0 || x.cluster+x.clusters > n.clusterCount() {
		return clusterRun{}, invalid("an attribute in %d clusters at %d", x.clusters, x.cluster)
	}
	return x, nil
}

func littleEndian(b []byte) (number int64) {
	for i, digit := range b {
		number |= int64(digit) << (8 * i)
	}
	return number
}

// plan finds out how large the table can become.
func (m *mft) plan(r io.ReaderAt, records int64) error {
	// Whole clusters of records, and whole steps of the bitmap.
	step := max(ntfsBitmapStep*8*m.RecordBytes, m.ClusterBytes)
	wanted := ceilDiv(records*m.RecordBytes, step) * step / m.ClusterBytes
	m.clusters, m.newUsed = m.data.clusters, m.used
	end := m.data.cluster + m.data.clusters
	free, err := m.freeFrom(r, end, max(wanted-m.data.clusters, 0)+m.clustersOfBitmap(wanted))
	if err != nil {
		return err
	}
	if m.clustersOfBitmap(wanted) <= m.used.clusters {
		wanted = min(wanted, m.data.clusters+free)
	} else {
		wanted = min(wanted, m.data.clusters+free-m.clustersOfBitmap(wanted))
	}
	wanted = wanted * m.ClusterBytes / step * step / m.ClusterBytes
	if wanted <= m.data.clusters {
		return nil
	}
	m.clusters, m.records = wanted, wanted*m.ClusterBytes/m.RecordBytes
	if bitmap := m.clustersOfBitmap(wanted); bitmap > m.used.clusters {
		m.newUsed = clusterRun{cluster: m.data.cluster + wanted, clusters: bitmap}
	}
	return nil
}

// clustersOfBitmap is how many the bitmap of a table takes.
func (m *mft) clustersOfBitmap(clusters int64) int64 {
	return ceilDiv(ceilDiv(clusters*m.ClusterBytes/m.RecordBytes, 8), m.ClusterBytes)
}

// freeFrom counts the free clusters from one on, up to a number.
func (m *mft) freeFrom(r io.ReaderAt, cluster, most int64) (int64, error) {
	most = max(min(most, m.clusterCount()-cluster), 0)
	bits := make([]byte, most/8+2)
	if _, err := r.ReadAt(bits, m.allocation.cluster*m.ClusterBytes+cluster/8); err != nil {
		return 0, err
	}
	for free := range most {
		if at := cluster%8 + free; bits[at/8]>>(at%8)&1 != 0 {
			return free, nil
		}
	}
	return most, nil
}

// writeRecords fills what the table gets with records that are not in use.
func (m *mft) writeRecords(w readerWriterAt) error {
	const chunkBytes = 1 << 20
	first := littleEndian(attribute(m.record, ntfsAttrData)[48:56]) / m.RecordBytes
	chunk := make([]byte, 0, chunkBytes+m.RecordBytes)
	at := m.data.cluster*m.ClusterBytes + first*m.RecordBytes
	for number := first; number < m.records; number++ {
		chunk = append(chunk, m.freeRecord(number)...)
		if len(chunk) < chunkBytes && number+1 < m.records {
			continue
		}
		if _, err := w.WriteAt(chunk, at); err != nil {
			return err
		}
		at += int64(len(chunk))
		chunk = chunk[:0]
	}
	return nil
}

// freeRecord is a record that was never in use, as it lies on the disk.
func (m *mft) freeRecord(number int64) []byte {
	const fixups = 48
	record := make([]byte, m.RecordBytes)
	count := int(m.RecordBytes/512) + 1
	attributes := (fixups + 2*count + 7) &^ 7
	copy(record, "FILE")
	le := binary.LittleEndian
	le.PutUint16(record[4:], fixups)
	le.PutUint16(record[6:], uint16(count))
	le.PutUint16(record[16:], 1) // how often it was in use, and will be
	le.PutUint16(record[20:], uint16(attributes))
	le.PutUint32(record[24:], uint32(attributes)+8)
	le.PutUint32(record[28:], uint32(m.RecordBytes))
	le.PutUint32(record[44:], uint32(number))
	le.PutUint16(record[fixups:], 1)
	le.PutUint32(record[attributes:], ntfsAttrEnd)
	protect(record)
	return record
}

// protect moves the last two bytes of each 512 of a record into its head, and puts its number in their places.
func protect(record []byte) {
	le := binary.LittleEndian
	fixups, count := int(le.Uint16(record[4:])), int(le.Uint16(record[6:]))
	for i := 1; i < count; i++ {
		end := i*512 - 2
		copy(record[fixups+2*i:][:2], record[end:])
		copy(record[end:], record[fixups:][:2])
	}
}

// writeUsedRecords writes the bitmap of the records, perhaps in another place.
func (m *mft) writeUsedRecords(w readerWriterAt) error {
	bits := make([]byte, m.newUsed.clusters*m.ClusterBytes)
	if _, err := w.ReadAt(bits[:m.usedBytes], m.used.cluster*m.ClusterBytes); err != nil {
		return err
	}
	_, err := w.WriteAt(bits, m.newUsed.cluster*m.ClusterBytes)
	return err
}

// writeUsedClusters marks what the table and its bitmap take, and what the bitmap leaves.
func (m *mft) writeUsedClusters(w readerWriterAt) error {
	grown := clusterRun{m.data.cluster + m.data.clusters, m.clusters - m.data.clusters}
	if m.newUsed == m.used {
		return m.mark(w, grown, true)
	}
	grown.clusters += m.newUsed.clusters
	if err := m.mark(w, grown, true); err != nil {
		return err
	}
	return m.mark(w, m.used, false)
}

func (m *mft) mark(w readerWriterAt, x clusterRun, inUse bool) error {
	at := m.allocation.cluster*m.ClusterBytes + x.cluster/8
	bits := make([]byte, (x.cluster%8+x.clusters+7)/8)
	if _, err := w.ReadAt(bits, at); err != nil {
		return err
	}
	for i := x.cluster % 8; i < x.cluster%8+x.clusters; i++ {
		bits[i/8] &^= 1 << (i % 8)
		if inUse {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	_, err := w.WriteAt(bits, at)
	return err
}

// writeMFT writes the record of the table itself, and its copy.
func (m *mft) writeMFT(w readerWriterAt) error {
	record := bytes.Clone(m.record)
	bitmapBytes := ceilDiv(m.records, 8*ntfsBitmapStep) * ntfsBitmapStep
	for _, x := range []struct {
		kind      uint32
		run       clusterRun
		sizeBytes int64
	}{
		{ntfsAttrData, clusterRun{m.data.cluster, m.clusters}, m.clusters * m.ClusterBytes},
		{ntfsAttrBitmap, m.newUsed, bitmapBytes},
	} {
		if err := m.setRun(attribute(record, x.kind), x.run, x.sizeBytes); err != nil {
			return err
		}
	}
	protect(record)
	if _, err := w.WriteAt(record, m.data.cluster*m.ClusterBytes); err != nil {
		return err
	}
	_, err := w.WriteAt(record, m.mirror*m.ClusterBytes)
	return err
}

// setRun makes an attribute say that its data lie there.
func (m *mft) setRun(attr []byte, x clusterRun, sizeBytes int64) error {
	length, offset := signed(x.clusters), signed(x.cluster)
	pairs := attr[binary.LittleEndian.Uint16(attr[32:]):]
	text := append([]byte{byte(len(offset)<<4 | len(length))}, append(append(length, offset...), 0)...)
	if len(text) > len(pairs) {
		return fmt.Errorf("cannot note %d clusters at %d in %d bytes", x.clusters, x.cluster, len(pairs))
	}
	clear(pairs)
	copy(pairs, text)
	le := binary.LittleEndian
	le.PutUint64(attr[24:], uint64(x.clusters-1))
	le.PutUint64(attr[40:], uint64(x.clusters*m.ClusterBytes))
	le.PutUint64(attr[48:], uint64(sizeBytes))
	le.PutUint64(attr[56:], uint64(sizeBytes))
	return nil
}

// signed writes a positive number in as few bytes as leave its highest bit unset.
func signed(number int64) []byte {
	digits := []byte{byte(number)}
	for number >>= 7; number > 0; number >>= 8 {
		digits = append(digits, byte(number>>1))
	}
	return digits
}
