//! Replaces a configuration file so that no crash ever leaves half of it, and proves it: the power is cut at every
//! operation, and every image of what the disk may hold then is read back.
//!
//! Nothing here is a database; [`save`] is written against the trait `Vfs` and runs unchanged on the real disk.
//!
//! ```text
//! cargo run -p lsm-core --example atomic_config
//! ```

use std::io;
use std::path::Path;

use lsm_core::vfs::{PosixFs, SimFs, Vfs};

const OLD: &str = "colour = blue\n";

/// A new text longer than a page and a sector, so that it can tear.
fn new_text() -> String {
    (0..300).map(|line| format!("option_{line} = {}", line * line)).collect::<Vec<_>>().join("\n")
}

/// Replaces `directory/config`. When this returns, the new text is there to stay; until then it is the old text or
/// the new one, whatever happens.
fn save(vfs: &dyn Vfs, directory: &Path, text: &str) -> io::Result<()> {
    write_temporary(vfs, directory, text, true)?;
    vfs.rename(&directory.join("config.new"), &directory.join("config"))?;
    // The name is durable only now.
    vfs.sync_dir(directory)
}

/// What most programs do: the name may reach the disk before the bytes do.
fn save_carelessly(vfs: &dyn Vfs, directory: &Path, text: &str) -> io::Result<()> {
    write_temporary(vfs, directory, text, false)?;
    vfs.rename(&directory.join("config.new"), &directory.join("config"))?;
    vfs.sync_dir(directory)
}

fn write_temporary(vfs: &dyn Vfs, directory: &Path, text: &str, sync: bool) -> io::Result<()> {
    let temporary = directory.join("config.new");
    // Left over from a save that crashed.
    match vfs.remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = vfs.create_new(&temporary)?;
    file.write_at(text.as_bytes(), 0)?;
    if sync { file.sync_data() } else { Ok(()) }
}

fn load(vfs: &dyn Vfs, directory: &Path) -> io::Result<String> {
    let file = vfs.open_read(&directory.join("config"))?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

type Save = fn(&dyn Vfs, &Path, &str) -> io::Result<()>;

/// A disk with the old text on it.
fn disk_with_old_text() -> io::Result<SimFs> {
    let fs = SimFs::new();
    fs.write_all(Path::new("/config"), OLD.as_bytes())?;
    Ok(fs)
}

/// Cuts the power at every operation of a save; returns how many images of the disk were fine, or the first that
/// was not.
fn prove(save: Save) -> io::Result<Result<usize, String>> {
    let (root, new) = (Path::new("/"), new_text());
    let rehearsal = disk_with_old_text()?;
    save(&rehearsal, root, &new)?;
    let mut image_count = 0;
    for operation in 0..=rehearsal.operations() {
        let fs = disk_with_old_text()?;
        fs.crash_at(operation);
        let saved = save(&fs, root, &new).is_ok();
        for image in fs.crash_images() {
            let text = load(&image.fs, root).unwrap_or_else(|error| error.to_string());
            if text != new && (saved || text != OLD) {
                let last = fs.last_operation().map(|operation| operation.to_string()).unwrap_or_default();
                let found = if text == OLD { "the old text" } else { "neither the old text nor the new one" };
                return Ok(Err(format!(
                    "{found} after a crash at `{last}`, when the disk kept {}",
                    image.description
                )));
            }
            // The next save works, whatever the crash left behind.
            save(&image.fs, root, "again\n")?;
            assert_eq!(load(&image.fs, root)?, "again\n");
            image_count += 1;
        }
    }
    Ok(Ok(image_count))
}

fn main() -> io::Result<()> {
    match prove(save)? {
        Ok(image_count) => {
            println!("save: the old text or the new one on each of {image_count} crashed disks");
        }
        Err(counterexample) => return Err(io::Error::other(counterexample)),
    }
    match prove(save_carelessly)? {
        Ok(_) => return Err(io::Error::other("the simulator should have caught this one")),
        Err(counterexample) => println!("save_carelessly: {counterexample}"),
    }
    let directory = tempfile::tempdir()?;
    save(&PosixFs, directory.path(), OLD)?;
    save(&PosixFs, directory.path(), &new_text())?;
    assert_eq!(load(&PosixFs, directory.path())?, new_text());
    println!("and the same function on the real disk");
    Ok(())
}
