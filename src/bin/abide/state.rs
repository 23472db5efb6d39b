//! `show` and `set`.

use crate::args::{Set, Show};
use crate::confirm::confirm;
use crate::output::clean;
use crate::{Failure, Session, views};
use abide::InstanceId;
use abide::admin::{Edit, Edited, SetOptions, StateView};
use abide::codec::{Path, Value};

pub(crate) async fn show(session: &mut Session, args: Show) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let path = args.path.unwrap_or_else(Path::root);
    let view = session.admin.state_at(&instance, &path).await?;
    let value = view.value_at(&path).and_then(|value| value.to_json());
    let is_absent = view.leaves.is_empty() && view.damaged.is_empty();
    if is_absent && path != Path::root() {
        return Err(Failure::refused(format!(
            "not found: nothing is stored at {path}"
        )));
    }
    // What of it can be read is shown all the same.
    let value = value.ok();
    if session.out.is_json() {
        let object = views::of("state", &instance)
            .text("path", &path.to_string())
            .maybe("schema", view.schema)
            .maybe_text("changed", view.changed);
        session
            .out
            .object(object.raw("value", value.as_deref().unwrap_or("null")))?;
    }
    if value.is_none() || !session.out.is_json() {
        leaves(session, &instance, &view, &path)?;
    }
    session.out.damaged(&view.damaged)?;
    if value.is_none() {
        return Err(Failure::refused("the state cannot be read as a whole"));
    }
    Ok(())
}

/// The leaves that say something, with their values as JSON.
pub(crate) fn shown(view: &StateView) -> impl Iterator<Item = (&Path, String)> {
    let mut leaves = view.leaves.iter().map(|(of, _)| of).peekable();
    std::iter::from_fn(move || {
        loop {
            let of = leaves.next()?;
            // A container's marker stands before its parts, which say more.
            if leaves.peek().is_none_or(|next| !of.contains(next)) {
                let value = view.value_at(of).and_then(|value| value.to_json());
                return Some((of, value.unwrap_or_else(|_| "null".to_owned())));
            }
        }
    })
}

/// Prints what is stored at and below a path, each with its own path.
fn leaves(
    session: &mut Session,
    instance: &InstanceId,
    view: &StateView,
    path: &Path,
) -> Result<(), Failure> {
    for (of, value) in shown(view).filter(|(of, _)| path.contains(of)) {
        let object = views::of("leaf", instance)
            .text("path", &of.to_string())
            .raw("value", &value);
        let line = format!("{} = {}", clean(&of.to_string()), clean(&value));
        session.out.either(&line, object)?;
    }
    Ok(())
}

pub(crate) async fn set(session: &mut Session, args: Set) -> Result<(), Failure> {
    let instance = args.named.instance()?;
    let options = |dry_run| SetOptions {
        change_type: args.change_type,
        dry_run,
    };
    let edit = match (args.value.clone(), args.append) {
        (None, _) => Edit::Remove,
        (Some(value), false) => Edit::Set(value),
        (Some(value), true) => Edit::Append(value),
    };
    let (admin, path) = (&session.admin, &args.path);
    let mut agreed = None;
    if !args.sure.yes {
        let planned = admin.edit(&instance, path, &edit, options(true)).await?;
        if args.sure.dry_run {
            return report(session, &instance, &args, &planned);
        }
        confirm(args.sure, &[line(path, &planned)?])?;
        agreed = Some(planned);
    }
    let options = options(false);
    let edited = match agreed {
        Some(planned) => {
            admin
                .edit_planned(&instance, path, &edit, options, &planned)
                .await?
        }
        None => admin.edit(&instance, path, &edit, options).await?,
    };
    report(session, &instance, &args, &edited)
}

fn line(path: &Path, edited: &Edited) -> Result<String, Failure> {
    let json = |value: &Value| value.to_json();
    let line = match (&edited.before, &edited.after) {
        (Some(before), Some(after)) => {
            format!("{path}: {} becomes {}", json(before)?, json(after)?)
        }
        (None, Some(after)) => format!("{path}: {} is added", json(after)?),
        (Some(before), None) => format!("{path}: {} is removed", json(before)?),
        (None, None) => format!("{path}: nothing"),
    };
    Ok(clean(&line))
}

fn report(
    session: &mut Session,
    instance: &InstanceId,
    args: &Set,
    edited: &Edited,
) -> Result<(), Failure> {
    let json = |value: &Option<Value>| match value {
        Some(value) => value.to_json(),
        None => Ok("null".to_owned()),
    };
    let object = views::of("set", instance)
        .text("path", &args.path.to_string())
        .raw("before", &json(&edited.before)?)
        .raw("after", &json(&edited.after)?)
        .plain("added", edited.before.is_none())
        .plain("removed", edited.after.is_none())
        .plain("dry_run", args.sure.dry_run);
    let line = line(&args.path, edited)?;
    Ok(session.out.either(&line, object)?)
}
