package multicall

// agentSettings are the keys of the shipping agent.
func agentSettings() []setting {
	return []setting{
		{
			key: "agent", def: "auto", help: "Whether archive_command works through an agent: auto, external or off.",
			flag: func(f *settingFlags) *string { return f.Agent },
			set:  func(c *Config, v string) error { return oneOf(&c.Agent, v, "auto", "external", "off") },
		},
		{
			key: "agent_dir", help: "Where the agent is found; /tmp/pitr-UID if empty.",
			flag: func(f *settingFlags) *string { return f.AgentDir },
			set:  func(c *Config, v string) (err error) { c.AgentDir, err = parsePath(v); return err },
		},
	}
}
