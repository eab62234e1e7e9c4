//! Plain words for prompts where no tokenizer is at hand.
//!
//! Short common words are one token each, their space included, in the vocabularies of most
//! models; how many they really make, only the server can say. Pure.

/// Separated by single spaces; the list never changes, for a seed must give the same prompts.
const WORDS: &str = "\
    able about above across action after again age agree air all also always among animal answer any \
    appear apple area arm army around art ask baby back bad ball bank base bath bear beat bed before \
    begin behind bell best better between big bird bit black blood blow blue board boat body bone \
    book both box boy bread break bring brother brown build burn bus buy call can car card care \
    carry case cat cause center chair chance change check child church circle city class clean clear \
    clock close cloth cloud coat cold color come common cook cool copper corn corner cost cotton \
    could count country cover cow cross cry cup current cut dance dark day dead deal dear deep \
    desert design desk door double down draw dream dress drink drive drop dry dust each ear early \
    earth east easy eat edge egg end engine enough enter even event ever every eye face fact fall \
    family far farm fast father fear feed feel few field fight fill film find fine finger fire first \
    fish flat floor flow flower fly follow food foot force forest form free fresh friend front fruit \
    full game garden gas gate get girl give glass goal gold good grass great green ground group grow \
    guess hair half hall hand hang happy hard hat head hear heart heat heavy help high hill history \
    hit hold hole home hope horse hot hour house human ice idea inch iron island job join jump just \
    keep key kind king know lake land language large last late laugh law lead leaf learn least leave \
    left leg length less letter level life lift light like line list listen little live long look \
    lose lot love low machine main make man map mark market matter mean meat meet metal middle mile \
    milk mind mine minute money month moon more morning most mother mountain mouth move much music \
    name nation near neck need never new next night noise north nose note number ocean off office \
    often oil old once only open order other out over own page pain paint paper part party pass past \
    path pay peace people person picture piece plain plan plane plant play point poor post power \
    press price print pull push question quick quiet race rain reach read ready real record red rest \
    rich ride right ring rise river road rock roll roof room root rose round rule run safe sail salt \
    same sand save say scale school science sea season seat second seed sell send sense serve set \
    seven shade shape share sharp sheet ship shoe shop short show side sign silver sing sister size \
    skin sky sleep slow small smell smile smoke snow soft soil some son song soon sound south space \
    speak special speed spell spend spot spread spring square stand star start state stay steel step \
    stick still stone stop store storm story street strong study such sudden sugar summer sun sure \
    surface swim system table tail take talk tall teach team tell test thank thick thin think third \
    thought thousand three through time tiny together tone tool tooth top touch toward town track \
    trade train travel tree trip true try tube turn twenty type under unit until use valley value \
    very view village visit voice vowel wait walk wall want war warm wash watch water wave way wear \
    weather week weight well west wheel white whole wide wife wild will wind window winter wire wish \
    woman wonder wood word work world write wrong yard year yellow yes young";

pub(super) fn plain() -> Vec<String> {
    WORDS.split(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_there_once() {
        let words = plain();
        assert!(
            words.len() > 400
                && words.iter().all(|word| word.bytes().all(|b| b.is_ascii_lowercase()))
        );
        let unique: std::collections::BTreeSet<&String> = words.iter().collect();
        assert_eq!(unique.len(), words.len());
    }
}
