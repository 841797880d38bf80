//! `asr listen`: a recording in place of a microphone, and a real capture device without hardware.

use super::{asr, objects, run, wav};
use serde_json::Value;
use std::fs;

fn events<'a>(lines: &'a [Value], kind: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == kind).collect()
}

#[test]
fn a_recording_is_heard_as_it_sounds_and_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept.wav");
    let before = std::time::Instant::now();
    let (code, out, err) = run(asr()
        .args(["listen", "--file", "examples/audio/swa.m4a", "-f", "jsonl", "--record"])
        .arg(&kept));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(before.elapsed().as_secs_f64() >= 4.5, "no faster than it sounds");
    let lines = objects(&out);
    assert_eq!(lines[0]["event"], "start");
    let (partial, last) = (events(&lines, "partial"), lines.last().expect("an end"));
    assert!(partial.iter().any(|event| !event["language"].is_null()), "{out}");
    for event in &partial {
        let languages = event["languages"].as_array().expect("languages");
        assert!(languages.len() <= 3);
        let first = languages.first().map_or(&Value::Null, |language| &language["code"]);
        assert_eq!(first, &event["language"]);
        assert!(event["latency_s"].as_f64().is_some_and(|latency| latency >= 0.0));
    }
    let finals = events(&lines, "final");
    assert!(!finals.is_empty() && finals.iter().any(|f| f["text"] != ""));
    let mut end = 0.0;
    for event in finals {
        let start = event["start_s"].as_f64().expect("a time");
        assert!(start >= end, "{out}");
        end = event["end_s"].as_f64().expect("a time");
        assert!(event["voice_start_s"].as_f64().expect("a time") <= end);
    }
    assert_eq!(last["event"], "end");
    assert_eq!((&last["dropped_samples"], &last["overruns"]), (&0.into(), &0.into()));
    let duration = last["duration_s"].as_f64().expect("a time");
    assert!((duration - 4.671).abs() < 0.01, "{duration}");
    let kept_s = (fs::metadata(&kept).expect("kept").len() - 44) as f64 / 32e3;
    assert!((kept_s - duration).abs() < 0.001, "{kept_s} {duration}");
}

#[test]
fn plain_lines_name_the_language_alone_if_asked() {
    let file = ["listen", "--file", "examples/audio/swa.m4a"];
    let (code, out, err) = run(asr().args(file).args(["--identify-only", "-l", "swa,eng"]));
    assert_eq!(code, 0);
    assert!(out.lines().any(|line| line.contains(" final [")), "{out}");
    for line in out.lines() {
        assert!(line.contains(" partial [") || line.contains(" final ["), "{line}");
        assert!(line.ends_with(']'), "no text in {line}");
        assert!(line.contains("swa ") || line.contains("eng ") || line.contains("[-"), "{line}");
    }
    assert!(err.contains("listening to `examples/audio/swa.m4a`"), "{err}");
    assert!(err.contains("0 samples dropped, 0 overruns, latency "), "{err}");
}

#[test]
fn silence_and_hum_give_no_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hum.wav");
    let hum: Vec<f32> = (0..48_000)
        .map(
            |i| if i < 16_000 { 0.0 } else { 0.2 * (i as f32 * 0.02 * std::f32::consts::PI).sin() },
        )
        .collect();
    fs::write(&path, wav(&hum, 16_000)).expect("written");
    let (code, out, _) = run(asr().args(["listen", "-f", "jsonl", "--file"]).arg(&path));
    assert_eq!(code, 0);
    for event in objects(&out) {
        assert!(event.get("text").is_none_or(|text| text == ""), "{event}");
    }
}

#[cfg(not(feature = "microphone"))]
#[test]
fn a_build_without_microphones_says_so() {
    for args in [["listen"].as_slice(), &["listen", "--list-devices"]] {
        let (code, out, err) = run(asr().args(args));
        assert_eq!((code, out.as_str()), (1, ""));
        let told = "error: built without `microphone`; rebuild with `--features microphone`\n";
        assert!(err.starts_with(told), "{err}");
        assert!(err.contains("\n\nhint: "), "{err}");
    }
}

/// A sound server of our own whose null sink is the microphone.
#[cfg(all(feature = "microphone", unix))]
mod device {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::Duration;

    struct Server {
        folder: tempfile::TempDir,
        process: Child,
    }

    impl Server {
        fn start() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let socket = folder.path().join("socket");
            let text = format!(
                "pcm.!default {{\n type pulse\n server \"unix:{}\"\n device \"fake.monitor\"\n \
                 hint {{ show on description \"fake microphone\" }}\n}}\n",
                socket.display()
            );
            fs::write(folder.path().join("asound.conf"), text).expect("written");
            let process = Self::spawn(folder.path());
            Self { folder, process }
        }

        fn spawn(folder: &Path) -> Child {
            let socket = folder.join("socket");
            let protocol =
                format!("module-native-protocol-unix socket={} auth-anonymous=1", socket.display());
            let process = Command::new("pulseaudio")
                .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"])
                .args(["-L", &protocol])
                .args(["-L", "module-null-sink sink_name=fake rate=48000 channels=2"])
                .env("HOME", folder)
                .env("XDG_RUNTIME_DIR", folder)
                .stderr(Stdio::null())
                .spawn()
                .expect("pulseaudio is installed");
            while !socket.exists() {
                std::thread::sleep(Duration::from_millis(50));
            }
            process
        }

        fn command(&self, name: &str) -> Command {
            let mut command = Command::new(name);
            let config = self.folder.path().join("asound.conf");
            let base = "/usr/share/alsa/alsa.conf";
            command.env("ALSA_CONFIG_PATH", format!("{base}:{}", config.display()));
            command.env("HOME", self.folder.path());
            let socket = self.folder.path().join("socket");
            command.env("PULSE_SERVER", format!("unix:{}", socket.display()));
            command
        }

        fn play(&self, path: &Path) -> Child {
            let mut command = self.command("paplay");
            command.args(["--device=fake"]).arg(path).spawn().expect("paplay is installed")
        }

        fn unplug(&mut self) {
            self.process.kill().expect("killed");
            self.process.wait().expect("ended");
            let _ = fs::remove_file(self.folder.path().join("socket"));
        }
    }

    impl Drop for Server {
        fn drop(&mut self) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }

    #[test]
    #[ignore = "needs PulseAudio and its ALSA plugin (pulseaudio, pulseaudio-utils, libasound2-plugins)"]
    fn a_device_is_heard_unplugged_and_heard_again() {
        let mut server = Server::start();
        let folder = tempfile::tempdir().expect("a folder");
        let (speech, kept) = (folder.path().join("speech.wav"), folder.path().join("kept.wav"));
        let options = asr::audio::DecodeOptions::default();
        let clip = asr::audio::decode_path("examples/audio/swa.m4a".as_ref(), &options);
        fs::write(&speech, wav(&clip.expect("decodes").samples, 16_000)).expect("written");
        let (code, devices, _) = run(assert_cmd::Command::from_std({
            let mut command = server.command(env!("CARGO_BIN_EXE_asr"));
            command.args(["listen", "--list-devices"]);
            command
        })
        .timeout(Duration::from_secs(60)));
        assert_eq!(code, 0);
        assert!(devices.starts_with("* default "), "{devices}");

        let mut listener = server
            .command(env!("CARGO_BIN_EXE_asr"))
            .args(["listen", "-f", "jsonl", "--record"])
            .arg(&kept)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut lines = BufReader::new(listener.stdout.take().expect("piped")).lines();
        let mut seen = Vec::new();
        let mut wait_for = |kind: &str| {
            for line in lines.by_ref() {
                let event: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
                seen.push(event.clone());
                if event["event"] == kind {
                    return event;
                }
            }
            panic!("no `{kind}`: {seen:?}");
        };
        let start = wait_for("start");
        assert_eq!((&start["sample_rate_hz"], &start["channels"]), (&48_000.into(), &2.into()));
        let mut player = server.play(&speech);
        let partial = wait_for("partial");
        let since = partial["end_s"].as_f64().expect("a time")
            - partial["voice_start_s"].as_f64().expect("a time")
            + partial["latency_s"].as_f64().expect("a time");
        assert!(since < 1.5, "first language {since} s after speech began");
        wait_for("final");
        player.wait().expect("played");
        server.unplug();
        wait_for("device_lost");
        server.process = Server::spawn(server.folder.path());
        wait_for("device_back");
        let mut player = server.play(&speech);
        wait_for("final");
        player.wait().expect("played");
        let interrupt = Command::new("kill").args(["-INT", &listener.id().to_string()]).status();
        assert!(interrupt.expect("kill runs").success());
        let end = wait_for("end");
        assert_eq!(listener.wait().expect("ended").code(), Some(130));
        assert_eq!(end["dropped_samples"], 0);
        assert_eq!(end["devices_lost"], 1);
        let kept = asr::audio::decode_path(&kept, &options).expect("the recording is whole");
        let heard_s = kept.samples.len() as f64 / 16e3;
        assert!((heard_s - end["duration_s"].as_f64().expect("a time")).abs() < 0.1);
        assert!(kept.damage.is_empty() && kept.samples.iter().any(|s| s.abs() > 0.05));
    }
}
