//! What comes of a pack that was looked at: it is mended with its sidecar if they may be mended, and noted.

use super::packs::{Exam, Exams, Flaw, Sidecar};
use super::{Damage, Effort, Findings, Mending, Part, Report, Request};
use crate::catalog::{PackCheck, PackRow, Verdict};
use crate::error::StoreError;
use crate::repair::Mend;
use crate::vault::Vault;

impl Vault {
    /// Enters what was found of one pack, and mends it if it may be mended.
    pub(super) fn settle(
        &self,
        request: &Request,
        row: &PackRow,
        mut exam: Exam,
        exams: &Exams<'_>,
        found: &mut Findings,
    ) -> Result<(), StoreError> {
        let (Some(pack), false) = (row.name, exam.is_gone) else { return Ok(()) };
        let lacks_parity = matches!(exam.sidecar, Sidecar::Missing | Sidecar::Damaged(_));
        if lacks_parity && exam.flaw.is_none() && request.mending == Mending::Mend {
            // It is made from what was written, or not at all.
            exam = if exam.effort == Effort::Whole { exam } else { exams.with(row, Effort::Whole)? };
        }
        let report = &mut found.report;
        report.packs += 1;
        report.bytes += row.bytes;
        report.packs_read += u64::from(exam.effort == Effort::Whole);
        let may_mend = request.mending == Mending::Mend;
        let mut verdict = Verdict::Whole;
        if let Some(flaw) = exam.flaw.take() {
            verdict = Verdict::Damaged;
            let (why, outcome) = match flaw {
                Flaw::Damaged(why) if may_mend => (why, self.mend_pack(row, request.now)?),
                Flaw::Damaged(why) => (why, Mend::Beyond),
                Flaw::Unread(why) => {
                    (format!("it cannot be read now, and is left as it is: {why}"), Mend::Later)
                }
            };
            let mut damage = Damage::new(Part::Pack(pack), why);
            match outcome {
                Mend::Done(how) => {
                    exam = exams.one(row)?;
                    match &exam.flaw {
                        None => (damage.mended, verdict) = (Some(how), Verdict::Mended),
                        Some(Flaw::Damaged(_)) => {}
                        Some(Flaw::Unread(why)) => {
                            damage.why += &format!("; {how}, and it cannot be read now: {why}");
                            found.kept.insert(row.number);
                        }
                    }
                }
                Mend::Beyond => {}
                Mend::Later => drop(found.kept.insert(row.number)),
            }
            if damage.mended.is_none() {
                found.bad.insert(row.number, pack);
            }
            report.damage.push(damage);
        }
        if exam.flaw.is_none() && verdict != Verdict::Damaged {
            self.settle_sidecar(request, row, &exam.sidecar, report)?;
        } else if let Sidecar::Damaged(why) = &exam.sidecar {
            report.damage.push(Damage::new(Part::Parity(pack), why));
        }
        report.damage.append(&mut exam.records);
        if exam.effort == Effort::Whole || verdict == Verdict::Damaged {
            found.checks.push(PackCheck { pack, checked_at: request.now, verdict });
        }
        Ok(())
    }

    /// Enters what was found of the sidecar of a pack that is whole, and makes it if it may be made.
    fn settle_sidecar(
        &self,
        request: &Request,
        row: &PackRow,
        sidecar: &Sidecar,
        report: &mut Report,
    ) -> Result<(), StoreError> {
        let may_mend = request.mending == Mending::Mend;
        let (why, mended) = match sidecar {
            Sidecar::Whole => return Ok(()),
            Sidecar::Missing if may_mend => return self.make_sidecar(row, request.now),
            Sidecar::Missing => {
                report.unprotected += 1;
                return Ok(());
            }
            Sidecar::Damaged(why) if may_mend => {
                self.make_sidecar(row, request.now)?;
                (why.clone(), Some("made anew".to_owned()))
            }
            Sidecar::Damaged(why) => (why.clone(), None),
            Sidecar::Unread(why) => (format!("it cannot be read now, and is left as it is: {why}"), None),
        };
        let what = row.name.map_or(Part::Index, Part::Parity);
        report.damage.push(Damage { what, why, mended });
        Ok(())
    }
}
