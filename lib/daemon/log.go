package daemon

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"aioc/lib/cli"
	"aioc/lib/config"
	"aioc/lib/durable"
)

// logSize is the size at which a log file is rotated, as in the original.
const logSize = 64 << 20

// logPath is the log file that the configuration asks for, "" if it asks for
// none: the directory must be named.
// Differs: the original always writes one (aioconnectors core.py).
func logPath(cfg *config.Config) string {
	if !cfg.Given("default_logger_dirpath") {
		return ""
	}
	return filepath.Join(cfg.LogDir, cli.LogName)
}

// logWarnings tells of a directory in which anybody could put another log.
func logWarnings(cfg *config.Config) []string {
	if logPath(cfg) == "" {
		return nil
	}
	info, err := os.Stat(cfg.LogDir)
	if err != nil || info.Mode()&0o002 == 0 || info.Mode()&os.ModeSticky != 0 {
		return nil
	}
	return []string{fmt.Sprintf("default_logger_dirpath: others can change the log, since %q is writable for all: chmod o-w", cfg.LogDir)}
}

// openLog returns the logger that the configuration asks for: to stderr, or to
// a file, or with "silent": false to both. file is nil without one.
func openLog(cfg *config.Config, stderr io.Writer, format cli.LogFormat, level slog.Leveler) (log *slog.Logger, file *cli.LogFile, err error) {
	log = cli.NewLogger(stderr, format, level)
	path := logPath(cfg)
	if path == "" {
		return log, nil, nil
	}
	if err := durable.MkdirAll(cfg.LogDir, 0o755); err != nil {
		return nil, nil, err
	}
	size := int64(0)
	if cfg.LogRotate.On {
		size = logSize
		if cfg.LogRotate.Size > 0 {
			size = cfg.LogRotate.Size
		}
	}
	if file, err = cli.OpenLogFile(path, size, cfg.LogBackups, stderr); err != nil {
		return nil, nil, err
	}
	fileFormat := format
	if format == cli.LogJournal {
		fileFormat = cli.LogText
	}
	toFile := cli.NewLogger(file, fileFormat, level)
	if !cfg.Silent {
		return cli.Both(log, toFile), file, nil
	}
	log.Info("the log goes to a file", "path", path)
	return toFile, file, nil
}
