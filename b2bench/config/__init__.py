"""What a run is made of: settings, presets and prompt sets, and how they are resolved into a configuration."""
