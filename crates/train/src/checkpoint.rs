//! Checkpoints: directories that are complete or not there.
//!
//! A checkpoint is filled under a temporary name next to its place. Then its files are flushed to disk, then
//! `training/manifest.json` is written with the size and CRC-32 of each, then the directory is renamed.
//! Whatever a crash leaves has a temporary name or no manifest that fits, and is ignored. (A crash
//! between the two renames that replace an older directory at the same place loses that one. A run replaces
//! `best/`, which it then finds again from the checkpoint before, and what is damaged.)

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Fault};
use crate::files::{create_dir, create_temp, is_temp_name, load_json, save_json, sync_dir, temp_sibling};

/// The directory of a checkpoint's own files next to the model: optimizer, state, manifest.
pub const TRAINING_DIR: &str = "training";
const MANIFEST: &str = "training/manifest.json";
const FORMAT_VERSION: u64 = 1;
pub(crate) const CHECKPOINTS_DIR: &str = "checkpoints";
const STEP_PREFIX: &str = "step-";

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    format_version: u64,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    /// Relative to the checkpoint, with `/`.
    path: String,
    size: u64,
    crc32: u32,
}

/// Fills a directory, in which there is a [`TRAINING_DIR`] already, and puts it at `dest`, in one step as far as
/// anyone can see. An older checkpoint there
/// is replaced after the new one is complete. If anything fails, `dest` stays as it was and nothing else is
/// left.
///
/// # Errors
///
/// What `fill` returns; [`Error::NotACheckpoint`] if `dest` holds something else; [`Error::Io`] if the disk
/// refuses.
pub fn write_atomic<E: From<Error>>(dest: &Path, fill: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    refuse_foreign(dest)?;
    let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_dir(parent)?;
    let temp = TempDir::next_to(dest)?;
    let training = temp.0.join(TRAINING_DIR);
    fs::create_dir(&training).map_err(Error::io("create", &training))?;
    fill(&temp.0)?;
    seal(&temp.0)?;
    replace(&temp.0, dest)?;
    sync_dir(parent)?;
    Ok(())
}

/// Checks every file of a checkpoint against its manifest, bytes included.
///
/// # Errors
///
/// [`Error::DamagedCheckpoint`] with the first file that is missing or different, [`Error::CheckpointFormat`]
/// for a layout of another version, [`Error::BadState`] for a broken manifest, [`Error::Io`] if a file cannot
/// be read.
pub fn verify(dir: &Path) -> Result<(), Error> {
    for entry in check_sizes(dir)? {
        let path = dir.join(&entry.path);
        if crc32(&path)? != entry.crc32 {
            return Err(damaged(dir, &entry.path, Fault::Checksum));
        }
    }
    Ok(())
}

/// Whether all files of a checkpoint are there in full size. Unlike [`verify`] this does not read them.
pub fn is_complete(dir: &Path) -> bool {
    check_sizes(dir).is_ok()
}

/// Where the checkpoint of a step belongs.
pub fn step_dir(run_dir: &Path, step: usize) -> PathBuf {
    run_dir.join(CHECKPOINTS_DIR).join(format!("{STEP_PREFIX}{step:06}"))
}

/// The newest checkpoint of a run that passes [`verify`], with its step. Damaged ones that are newer are passed over
/// with a warning; a run that has only damaged ones is an error and does not begin again by itself.
///
/// # Errors
///
/// [`Error::NoWholeCheckpoint`]; [`Error::CheckpointFormat`] for a newest one of another version; [`Error::Io`] if
/// the run directory cannot be read. One that does not exist has no checkpoint.
pub fn latest(run_dir: &Path) -> Result<Option<(usize, PathBuf)>, Error> {
    let mut damaged = Vec::new();
    for (step, path) in step_dirs(run_dir)?.into_iter().rev() {
        match verify(&path) {
            Ok(()) => {
                damaged.iter().for_each(|error| tracing::warn!("passing over a checkpoint: {error}"));
                return Ok(Some((step, path)));
            }
            Err(error @ (Error::DamagedCheckpoint { .. } | Error::BadState { .. })) => damaged.push(error),
            Err(error) => return Err(error),
        }
    }
    match damaged.into_iter().next() {
        None => Ok(None),
        Some(newest) => Err(Error::NoWholeCheckpoint { dir: run_dir.to_owned(), newest: Box::new(newest) }),
    }
}

/// Removes the step checkpoints of a run up to step `newest`, but for the last `keep_last` whole ones.
///
/// Later ones are damaged, or the run would have gone on from them; it replaces them when it gets there.
///
/// # Errors
///
/// [`Error::Io`] if one cannot be removed; the others are removed then.
pub fn prune(run_dir: &Path, newest: usize, keep_last: usize) -> Result<(), Error> {
    prune_scheduled(run_dir, newest, keep_last, None, |_| true)
}

/// [`prune`] where some checkpoints are not of the run's schedule: an interrupt wrote them, say. Such a one does not
/// count among the `keep_last`, and stays only as long as it is the newest. The newest one of step `good` or before stays
/// in any case, or the oldest one where there is none.
pub(crate) fn prune_scheduled(
    run_dir: &Path,
    newest: usize,
    keep_last: usize,
    good: Option<usize>,
    is_scheduled: impl Fn(usize) -> bool,
) -> Result<(), Error> {
    let (mut n_whole, mut n_kept) = (0, 0);
    let mut result = Ok(());
    let dirs = step_dirs(run_dir)?;
    let is_good =
        |(step, path): &&(usize, PathBuf)| good.is_some_and(|good| *step <= good) && is_complete(path);
    let oldest = || dirs.iter().find(|(_, path)| good.is_some() && is_complete(path));
    let good = dirs.iter().rfind(is_good).or_else(oldest).map(|(step, _)| *step);
    for (step, path) in dirs.into_iter().rev().filter(|(step, _)| *step <= newest) {
        let is_whole = is_complete(&path);
        n_whole += usize::from(is_whole);
        let counts = is_whole && is_scheduled(step) && n_kept < keep_last;
        n_kept += usize::from(counts);
        let is_newest = is_whole && n_whole == 1;
        if !counts && !is_newest && Some(step) != good {
            result = result.and(remove(&path));
        }
    }
    result
}

/// Removes the checkpoints that are not of the run's schedule, at its end.
pub(crate) fn remove_unscheduled(run_dir: &Path, is_scheduled: impl Fn(usize) -> bool) -> Result<(), Error> {
    let others = step_dirs(run_dir)?.into_iter().filter(|(step, _)| !is_scheduled(*step));
    others.map(|(_, path)| remove(&path)).fold(Ok(()), Result::and)
}

/// Removes what interrupted writes have left in a run directory.
pub(crate) fn remove_leftovers(run_dir: &Path) {
    for dir in [run_dir.to_owned(), run_dir.join(CHECKPOINTS_DIR)] {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten().filter(|entry| is_temp_name(&entry.file_name().to_string_lossy())) {
            // What stays does no harm.
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

/// Removes a checkpoint, by way of a temporary name so that it is never seen in half.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let temp = temp_sibling(path);
    fs::rename(path, &temp).map_err(Error::io("remove", path))?;
    fs::remove_dir_all(&temp).map_err(Error::io("remove", path))
}

/// The step checkpoints of a run, complete or not, oldest first; none where there is no run.
///
/// # Errors
///
/// [`Error::Io`] if the directory cannot be read.
pub fn step_dirs(run_dir: &Path) -> Result<Vec<(usize, PathBuf)>, Error> {
    let dir = run_dir.join(CHECKPOINTS_DIR);
    let entries = match fs::read_dir(&dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        result => result.map_err(Error::io("list", &dir))?,
    };
    let mut dirs = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io("list", &dir))?;
        let name = entry.file_name();
        let step = name.to_str().and_then(|name| name.strip_prefix(STEP_PREFIX)?.parse().ok());
        dirs.extend(step.map(|step| (step, entry.path())));
    }
    dirs.sort_unstable();
    Ok(dirs)
}

/// A directory that is removed on drop; after a rename there is nothing to remove.
struct TempDir(PathBuf);

impl TempDir {
    fn next_to(dest: &Path) -> Result<Self, Error> {
        let (path, ()) = create_temp(dest, |temp| fs::create_dir(temp)).map_err(Error::io("create", dest))?;
        Ok(Self(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Refuses a place that holds something else than a checkpoint.
pub(crate) fn refuse_foreign(dest: &Path) -> Result<(), Error> {
    let foreign = match fs::read_dir(dest) {
        Ok(mut entries) => entries.next().is_some() && !dest.join(MANIFEST).exists(),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    };
    if foreign { Err(Error::NotACheckpoint { path: dest.to_owned() }) } else { Ok(()) }
}

/// Flushes every file and writes the manifest last.
fn seal(dir: &Path) -> Result<(), Error> {
    let mut files = Vec::new();
    seal_files(dir, "", &mut files)?;
    files.retain(|entry| entry.path != MANIFEST);
    let training = dir.join(TRAINING_DIR);
    save_json(&dir.join(MANIFEST), &Manifest { format_version: FORMAT_VERSION, files })?;
    sync_dir(&training)?;
    sync_dir(dir)
}

fn seal_files(dir: &Path, prefix: &str, files: &mut Vec<Entry>) -> Result<(), Error> {
    let entries = fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(Error::io("list", dir))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if path.is_dir() {
            seal_files(&path, &format!("{name}/"), files)?;
            sync_dir(&path)?;
            continue;
        }
        let file = File::open(&path).map_err(Error::io("read", &path))?;
        file.sync_all().map_err(Error::io("flush", &path))?;
        let size = file.metadata().map_err(Error::io("read", &path))?.len();
        files.push(Entry { path: name, size, crc32: crc32(&path)? });
    }
    Ok(())
}

/// Renames `temp` to `dest`; what was at `dest` goes only when the new one is in place, and comes back if it
/// fails.
fn replace(temp: &Path, dest: &Path) -> Result<(), Error> {
    let aside = dest.exists().then(|| temp_sibling(dest));
    if let Some(aside) = &aside {
        fs::rename(dest, aside).map_err(Error::io("replace", dest))?;
    }
    if let Err(source) = fs::rename(temp, dest) {
        if let Some(aside) = &aside {
            let _ = fs::rename(aside, dest);
        }
        return Err(Error::Io { action: "create", path: dest.to_owned(), source });
    }
    if let Some(aside) = aside {
        let _ = fs::remove_dir_all(aside);
    }
    Ok(())
}

fn check_sizes(dir: &Path) -> Result<Vec<Entry>, Error> {
    let path = dir.join(MANIFEST);
    if dir.is_dir() && !path.exists() {
        return Err(damaged(dir, MANIFEST, Fault::Missing));
    }
    let manifest: Manifest = load_json(&path)?;
    if manifest.format_version != FORMAT_VERSION {
        let path = dir.to_owned();
        return Err(Error::CheckpointFormat {
            path,
            found: manifest.format_version,
            supported: FORMAT_VERSION,
        });
    }
    for entry in &manifest.files {
        let inside = Path::new(&entry.path).components().all(|part| matches!(part, Component::Normal(_)));
        let size = fs::metadata(dir.join(&entry.path)).ok().filter(|_| inside).map(|file| file.len());
        match size {
            None => return Err(damaged(dir, &entry.path, Fault::Missing)),
            Some(found) if found != entry.size => {
                return Err(damaged(dir, &entry.path, Fault::Size { expected: entry.size, found }));
            }
            Some(_) => {}
        }
    }
    Ok(manifest.files)
}

fn crc32(path: &Path) -> Result<u32, Error> {
    let file = File::open(path).map_err(Error::io("read", path))?;
    let mut reader = flate2::CrcReader::new(io::BufReader::with_capacity(1 << 16, file));
    io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read", path))?;
    Ok(reader.crc().sum())
}

fn damaged(dir: &Path, file: &str, fault: Fault) -> Error {
    Error::DamagedCheckpoint { path: dir.to_owned(), file: file.to_owned(), fault }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill_with(text: &'static str) -> impl FnOnce(&Path) -> Result<(), Error> {
        move |dir| {
            fs::write(dir.join("training/state.json"), "{}").unwrap();
            fs::write(dir.join("model"), text).unwrap();
            Ok(())
        }
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_checkpoint_is_complete_and_replaced_as_a_whole() {
        let run = tempfile::tempdir().unwrap();
        let dest = run.path().join("final");
        write_atomic(&dest, fill_with("one")).unwrap();
        verify(&dest).unwrap();
        write_atomic(&dest, fill_with("two!")).unwrap();
        verify(&dest).unwrap();
        assert_eq!(fs::read_to_string(dest.join("model")).unwrap(), "two!");
        assert_eq!(names(run.path()), ["final"]);
        assert_eq!(names(&dest), ["model", "training"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_one_and_nothing_else() {
        let run = tempfile::tempdir().unwrap();
        let dest = run.path().join("final");
        write_atomic(&dest, fill_with("one")).unwrap();
        let result = write_atomic(&dest, |dir| {
            fs::write(dir.join("model"), "half").unwrap();
            Err(Error::BadSet { text: "any error".into() })
        });
        assert!(matches!(result, Err(Error::BadSet { .. })));
        verify(&dest).unwrap();
        assert_eq!(fs::read_to_string(dest.join("model")).unwrap(), "one");
        assert_eq!(names(run.path()), ["final"]);
    }

    #[test]
    fn what_is_not_a_checkpoint_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("letter"), "dear").unwrap();
        let of_dir = write_atomic(home.path(), fill_with("x")).unwrap_err();
        let of_file = write_atomic(&home.path().join("letter"), fill_with("x")).unwrap_err();
        assert!(matches!(of_dir, Error::NotACheckpoint { .. }), "{of_dir}");
        assert!(matches!(of_file, Error::NotACheckpoint { .. }), "{of_file}");
        assert_eq!(names(home.path()), ["letter"]);
    }

    #[test]
    fn damage_is_found_and_named() {
        let run = tempfile::tempdir().unwrap();
        let check = |damage: &dyn Fn(&Path), expected: &str| {
            let dest = run.path().join("c");
            write_atomic(&dest, fill_with("bytes")).unwrap();
            damage(&dest);
            let message = verify(&dest).unwrap_err().to_string();
            assert!(message.contains(expected), "{message:?}, expected {expected:?}");
            fs::remove_dir_all(&dest).unwrap();
        };
        check(&|dir| fs::write(dir.join("model"), "byte").unwrap(), "model has 4 bytes, expected 5");
        check(&|dir| fs::write(dir.join("model"), "bites").unwrap(), "model does not have the bytes");
        check(&|dir| fs::remove_file(dir.join("model")).unwrap(), "model is missing");
        check(&|dir| fs::remove_file(dir.join(MANIFEST)).unwrap(), "manifest.json is missing");
        check(&|dir| fs::write(dir.join(MANIFEST), "{}").unwrap(), "missing field `format_version`");
        let newer = r#"{"format_version": 9, "files": []}"#;
        check(
            &|dir| fs::write(dir.join(MANIFEST), newer).unwrap(),
            "has format 9, this version reads format 1",
        );
        let outside = r#"{"format_version": 1, "files": [{"path": "../x", "size": 0, "crc32": 0}]}"#;
        check(&|dir| fs::write(dir.join(MANIFEST), outside).unwrap(), "../x is missing");
        assert!(matches!(verify(&run.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn the_latest_complete_checkpoint_is_found() {
        let run = tempfile::tempdir().unwrap();
        assert_eq!(latest(run.path()).unwrap(), None);
        for step in [5, 100, 20] {
            write_atomic(&step_dir(run.path(), step), fill_with("x")).unwrap();
        }
        fs::create_dir(step_dir(run.path(), 300)).unwrap();
        fs::create_dir(run.path().join("checkpoints/.tmp-1-2-step-000400")).unwrap();
        fs::create_dir(run.path().join("checkpoints/other")).unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some((100, step_dir(run.path(), 100))));
        fs::write(step_dir(run.path(), 100).join("model"), "y").unwrap();
        assert_eq!(latest(run.path()).unwrap(), Some((20, run.path().join("checkpoints/step-000020"))));
    }

    #[test]
    fn a_run_of_damaged_checkpoints_or_of_another_format_is_an_error() {
        let run = tempfile::tempdir().unwrap();
        for step in [5, 20] {
            write_atomic(&step_dir(run.path(), step), fill_with("x")).unwrap();
            fs::remove_file(step_dir(run.path(), step).join("model")).unwrap();
        }
        let error = latest(run.path()).unwrap_err();
        assert!(error.to_string().contains("no whole checkpoint"), "{error}");
        assert!(error.to_string().contains("step-000020 is damaged: model is missing"), "{error}");
        let newer = r#"{"format_version": 9, "files": []}"#;
        fs::write(step_dir(run.path(), 20).join(MANIFEST), newer).unwrap();
        assert!(matches!(latest(run.path()), Err(Error::CheckpointFormat { found: 9, .. })));
    }

    #[test]
    fn a_checkpoint_of_an_interrupt_evicts_none_of_the_schedule() {
        let run = tempfile::tempdir().unwrap();
        let save = |step| write_atomic(&step_dir(run.path(), step), fill_with("x")).unwrap();
        let is_even = |step: usize| step.is_multiple_of(2);
        let steps = || step_dirs(run.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        [2, 4, 6, 7].into_iter().for_each(save);
        prune_scheduled(run.path(), 7, 2, None, is_even).unwrap();
        assert_eq!(steps(), [4, 6, 7]);
        save(8);
        prune_scheduled(run.path(), 8, 2, None, is_even).unwrap();
        assert_eq!(steps(), [6, 8]);
        [9, 11].into_iter().for_each(save);
        prune_scheduled(run.path(), 11, 2, None, is_even).unwrap();
        assert_eq!(steps(), [6, 8, 11]);
        remove_unscheduled(run.path(), is_even).unwrap();
        assert_eq!(steps(), [6, 8]);
    }

    #[test]
    fn the_checkpoint_that_a_run_may_go_back_to_stays() {
        let run = tempfile::tempdir().unwrap();
        let save = |step| write_atomic(&step_dir(run.path(), step), fill_with("x")).unwrap();
        let steps = || step_dirs(run.path()).unwrap().into_iter().map(|(step, _)| step).collect::<Vec<_>>();
        [0, 2, 4, 6, 8].into_iter().for_each(save);
        prune_scheduled(run.path(), 8, 1, Some(5), |_| true).unwrap();
        assert_eq!(steps(), [4, 8]);
        save(10);
        prune_scheduled(run.path(), 10, 1, Some(3), |_| true).unwrap();
        assert_eq!(steps(), [4, 10], "there is none of step 3 or before, so the run goes back to the oldest");
    }

    #[test]
    fn pruning_keeps_the_last_whole_ones_up_to_a_step() {
        let run = tempfile::tempdir().unwrap();
        for step in 1..=7 {
            write_atomic(&step_dir(run.path(), step), fill_with("x")).unwrap();
        }
        fs::remove_file(step_dir(run.path(), 4).join("model")).unwrap();
        prune(run.path(), 5, 2).unwrap();
        let left = ["step-000003", "step-000005", "step-000006", "step-000007"];
        assert_eq!(names(&run.path().join("checkpoints")), left);
        prune(run.path(), 9, 9).unwrap();
        prune(&run.path().join("none"), 9, 2).unwrap();
        assert_eq!(step_dirs(run.path()).unwrap().len(), 4);
    }
}
