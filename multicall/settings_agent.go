package multicall

import "fmt"

// agentSettings are the keys of the shipping agent, of what the queues may hold
// and of what is told about them.
func agentSettings() []setting {
	return []setting{
		{
			key: "agent", def: "auto", help: "auto: a call that finds no agent starts one; external: it starts none; off: it asks none.",
			flag: func(f *settingFlags) *string { return f.Agent },
			set:  func(c *Config, v string) error { return oneOf(&c.Agent, v, "auto", "external", "off") },
		},
		{
			key: "agent_dir", help: "Where the agent has its socket; /tmp/pitr-UID if empty.",
			flag: func(f *settingFlags) *string { return f.AgentDir },
			set:  setAgentDir,
		},
		{
			key: "prefetch", def: "256MB", help: "How much WAL a recovery may keep ready in pg_wal; 0: nothing is read ahead.",
			flag: func(f *settingFlags) *string { return f.Prefetch },
			set:  func(c *Config, v string) (err error) { c.Prefetch, err = parseSize(v); return err },
		},
		{
			key: "queue_max", def: "0", help: "How much may wait in each queue; 0 is no limit.",
			flag: func(f *settingFlags) *string { return f.QueueMax },
			set:  func(c *Config, v string) (err error) { c.QueueMax, err = parseSize(v); return err },
		},
		{
			key: "queue_min_free", def: "64MB", help: "How much must stay free where the queues are.",
			flag: func(f *settingFlags) *string { return f.QueueMinFree },
			set:  func(c *Config, v string) (err error) { c.QueueMinFree, err = parseSize(v); return err },
		},
		{
			key: "allow_local_only", def: "off", help: "Also let a queue on this host be the only copy.",
			flag: func(f *settingFlags) *string { return (*string)(f.AllowLocalOnly) },
			set:  func(c *Config, v string) (err error) { c.AllowLocalOnly, err = parseBool(v); return err },
		},
		{
			key: "alert_age", def: "15m", help: "How long a file may wait before there is an alert; 0 is for ever.",
			flag: func(f *settingFlags) *string { return f.AlertAge },
			set:  func(c *Config, v string) (err error) { c.AlertAge, err = parseDuration(v); return err },
		},
		{
			key: "alert_bytes", def: "0", help: "How much may wait before there is an alert; 0 is any amount.",
			flag: func(f *settingFlags) *string { return f.AlertBytes },
			set:  func(c *Config, v string) (err error) { c.AlertBytes, err = parseSize(v); return err },
		},
		{
			key: "alert_interval", def: "1h", help: "How long an alert is not given again while nothing changes; 0: once is enough.",
			flag: func(f *settingFlags) *string { return f.AlertInterval },
			set:  func(c *Config, v string) (err error) { c.AlertInterval, err = parseDuration(v); return err },
		},
		{
			key: "metrics_file", help: "A file that the agent writes its figures to, for Prometheus.",
			flag: func(f *settingFlags) *string { return f.MetricsFile },
			set:  func(c *Config, v string) (err error) { c.MetricsFile, err = parsePath(v); return err },
		},
	}
}

// longestAgentDir leaves room for the name of the socket, whose whole path the
// kernel bounds to 107 bytes.
const longestAgentDir = 80

func setAgentDir(c *Config, v string) (err error) {
	c.AgentDir, err = parsePath(v)
	if err == nil && len(c.AgentDir) > longestAgentDir {
		return fmt.Errorf("%q has more than %d bytes, and a socket's path has to be short", v, longestAgentDir)
	}
	return err
}
