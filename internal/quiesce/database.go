package quiesce

import (
	"fmt"
	"strings"
)

// mysql holds the tables of a MySQL or MariaDB server by a connection: FLUSH TABLES WITH READ LOCK, until UNLOCK TABLES
// or the end of the connection. The server itself ends one that is silent for wait_timeout. The client stops at the
// first statement that fails, so that an answer at the end proves that the connection, and with it the lock, was there
// all the time.
type mysql struct {
	freezeFor Freeze
	position  string // the statement that shows the position in the binary log
}

func mysqlClient(f Freeze) []string {
	client := f.Client
	if len(client) == 0 {
		client = []string{"mysql"}
	}
	// After the caller's own, as --defaults-file has to come first.
	return append(client[:len(client):len(client)], "--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect")
}

func (m *mysql) greeting() string {
	return fmt.Sprintf("SET SESSION wait_timeout=%d, lock_wait_timeout=%d; SELECT CONCAT('ready ', VERSION());\n",
		seconds(m.freezeFor.deadline()), seconds(m.freezeFor.timeout()))
}

// ready learns the server's version: MySQL gave the statement another name, and later took the old one away.
func (m *mysql) ready(version string) {
	m.position = "SHOW MASTER STATUS"
	var major, minor int
	// A version that cannot be read leaves the old name.
	_, _ = fmt.Sscanf(version, "%d.%d", &major, &minor)
	if !strings.Contains(version, "MariaDB") && (major > 8 || (major == 8 && minor >= 2)) {
		m.position = "SHOW BINARY LOG STATUS"
	}
}

func (m *mysql) freeze() string {
	return "FLUSH TABLES WITH READ LOCK; " + m.position + "; SELECT 'frozen';\n"
}

func (m *mysql) thaw() string { return "SELECT 'thawed'; UNLOCK TABLES;\n" }

// postgresql holds a server in backup mode by a connection; its end ends the mode. Writers go on: what is copied
// meanwhile can be recovered, from the label that the end returns, although its parts lie on several volumes.
type postgresql struct {
	freezeFor Freeze
	old       bool // before version 15: other names and an argument more
}

func psqlClient(f Freeze) []string {
	client := f.Client
	if len(client) == 0 {
		client = []string{"psql"}
	}
	return append(client[:len(client):len(client)], "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1")
}

func (p *postgresql) greeting() string {
	return fmt.Sprintf("SET statement_timeout='%ds'; SELECT 'ready ' || current_setting('server_version_num');\n",
		seconds(p.freezeFor.timeout()))
}

func (p *postgresql) ready(version string) {
	number := 0
	_, _ = fmt.Sscanf(version, "%d", &number) // 0 is old, and the server then says so
	p.old = number < 150000
}

func (p *postgresql) freeze() string {
	if p.old {
		return "SELECT 'frozen ' || pg_start_backup('voltar', true, false);\n"
	}
	return "SELECT 'frozen ' || pg_backup_start('voltar', true);\n"
}

// thaw asks for the label on lines before the answer; waiting for the archive of the log would be waiting for others.
func (p *postgresql) thaw() string {
	if p.old {
		return "SELECT labelfile FROM pg_stop_backup(false, false); SELECT 'thawed';\n"
	}
	return "SELECT labelfile FROM pg_backup_stop(false); SELECT 'thawed';\n"
}
