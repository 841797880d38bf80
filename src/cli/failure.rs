//! How failures are told: what was being done, why it failed, and what to try.

use crate::audio::AudioError;
use crate::bench::ml_superb::MlSuperbError;
use crate::config::{ModelFolderError, RecipeError};
use crate::data::DataError;
use crate::decode::AlignError;
use crate::decode::lm::{ArpaError, HotwordError};
use crate::hub::{HubError, NotARepository};
use crate::pretrain::PretrainError;
use crate::text::ScoreError;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Any error on its way to the user.
pub(super) type AnyError = Box<dyn Error + Send + Sync>;

/// Misuse and failures that belong to no layer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CliError {
    /// A folder without audio.
    #[error("no audio files in `{}`", path.display())]
    NothingToDo { path: PathBuf },
    /// Standard input named twice.
    #[error("standard input `-` can be given once")]
    StdinTwice,
    /// A model that is neither embedded nor a folder.
    #[error("no model `{name}`: neither `default`, a file, a folder nor ORG/NAME on the Hub")]
    NoModel { name: String },
    /// A name that is none on the Hub.
    #[error("cannot download `{name}`")]
    Repository { name: String, source: NotARepository },
    /// A device that is not there.
    #[error("cannot compute on a CUDA device")]
    Device(#[from] asr_kernels::accelerator::Unavailable),
    /// Several kinds of arithmetic where one is needed.
    #[error("`--precision all` is for `asr bench speed`")]
    SeveralPrecisions,
    /// A model to import that needs no import.
    #[error("`{name}` is a model of ours already")]
    AlreadyOurs { name: String },
    /// A folder to write to that holds a model.
    #[error("`{}` already holds a model", folder.display())]
    ModelExists { folder: PathBuf },
    /// As many languages as neither one nor the inputs are.
    #[error("{languages} languages for {inputs} inputs: give one, or one for each")]
    LanguagesOfInputs { languages: usize, inputs: usize },
    /// Two inputs whose tensors would have the same names.
    #[error("two inputs are called `{stem}`, so their tensors would have the same names")]
    SameStem { stem: String },
    /// Hidden states that are no list of numbers.
    #[error("`--layers {given}` is neither `all` nor numbers such as 0,6,12")]
    Layers { given: String },
    /// A hidden state beyond the last.
    #[error("the model has {layers} layers, there is no hidden state {layer}")]
    NoLayer { layer: usize, layers: usize },
    /// Logits of a bare encoder.
    #[error("the model is a bare encoder without logits")]
    NoHead,
    /// A classifier or bare encoder asked for text.
    #[error("model `{name}` writes no text: it has no output layer with known tokens")]
    NoText { name: String },
    /// Several adapters where one is needed.
    #[error("model `{name}` has tokens for each language, and this needs those of one")]
    OneLanguage { name: String },
    /// A model without languages asked for one.
    #[error("model `{name}` names no languages")]
    NoLanguages { name: String },
    /// A new run into a folder that holds another.
    #[error("`{}` already holds a run", folder.display())]
    RunExists { folder: PathBuf },
    /// A model to start from that is of another make than the recipe.
    #[error("the model in `{}` has other features or another encoder than the recipe", folder.display())]
    OtherModel { folder: PathBuf },
    /// A learning rate out of range.
    #[error("the learning rate must be above 0 and below 1")]
    LearningRate,
    /// An encoder whose name names no folder, or that of another encoder.
    #[error("`{given}` needs a name of its own, such as `mine={given}`")]
    SystemName { given: String },
    /// A folder with a run of other settings.
    #[error("`{}` holds a run of another encoder, corpus or other settings", folder.display())]
    OtherRun { folder: PathBuf },
    /// A variant that could not be trained or scored.
    #[error("`{}` could not be trained and scored", folder.display())]
    Variant { folder: PathBuf },
    /// An output that cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// Layer weights of another form.
    #[error("`{}` is not a JSON object of name to list of weights", path.display())]
    LayerWeights { path: PathBuf, source: serde_json::Error },
    /// A file that cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A language model that is none.
    #[error("cannot use the language model `{}`", path.display())]
    LanguageModel { path: PathBuf, source: ArpaError },
    /// A microphone asked of a build without them.
    #[cfg(not(feature = "microphone"))]
    #[error("built without `microphone`; rebuild with `--features microphone`")]
    NoMicrophone,
    /// A folder without language models.
    #[error("no language models such as `swa.arpa.gz` in `{}`", folder.display())]
    NoLanguageModels { folder: PathBuf },
    /// A list of hotwords that is none.
    #[error("cannot use the hotwords in `{}`", path.display())]
    Hotwords { path: PathBuf, source: HotwordError },
    /// Several inputs in a format that holds one.
    #[error("`{format}` holds one recording, {inputs} were given")]
    OneRecording { format: String, inputs: usize },
    /// `--resume` without results to go on with.
    #[error("`--resume` needs `-o FOLDER/`, or `-f jsonl -o FILE`")]
    NothingToResume,
    /// A text to be aligned that cannot be.
    #[error("cannot align `{}`", path.display())]
    Align { path: PathBuf, source: AlignError },
    /// Nobody speaks in a recording whose language is asked for.
    #[error("no speech in `{}`", path.display())]
    NoSpeech { path: PathBuf },
    /// A manifest without clips.
    #[error("`{}` lists no clip", path.display())]
    NoClips { path: PathBuf },
    /// No clip of any source is kept.
    #[error("no clip is left: all are too short or too long")]
    NothingLeft,
    /// Weights other than those that a clustering was made with.
    #[error("the weights of model `{name}` are not those that the clustering was made with")]
    ModelChanged { name: String },
    /// A text without a word.
    #[error("no words in `{}`", path.display())]
    NoWords { path: PathBuf },
}

/// The message of an error with its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent wrappers repeat the words of what they wrap.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Something to try, if there is something.
pub(super) fn hint(error: &(dyn Error + 'static)) -> Option<&'static str> {
    if let Some(error) = error.downcast_ref::<CliError>() {
        return match error {
            CliError::NothingToDo { .. } => Some("add `--recursive` to look into its folders too"),
            CliError::NoModel { .. } => {
                Some("leave out `--model` to use the model inside the binary")
            }
            CliError::NoText { .. } => {
                Some("`asr identify` names languages, `asr features` writes hidden states")
            }
            CliError::NoLanguages { .. } => {
                Some("leave out `--model` to use the model inside the binary")
            }
            CliError::OneRecording { .. } => {
                Some("add `-o FOLDER/` for a file per recording, or use `-f ctm` or `-f jsonl`")
            }
            CliError::Device(_) => Some("leave out `--device` to compute on what there is"),
            CliError::AlreadyOurs { .. } => Some("use it with `--model` as it is"),
            CliError::ModelExists { .. } => Some("name a folder that is not there yet"),
            CliError::ModelChanged { .. } => {
                Some("name the model with `-m` and the layer with `--layer` if that is meant")
            }
            CliError::OneLanguage { .. } => Some("name one language with `-l LANG`"),
            CliError::NoSpeech { .. } => Some("name the language with `-l LANG`"),
            #[cfg(not(feature = "microphone"))]
            CliError::NoMicrophone => {
                Some("`asr listen --file AUDIO` listens to a file or a pipe as if it was one")
            }
            CliError::RunExists { .. } => {
                Some("add `--resume` to go on with it, or `--set output=FOLDER` for another folder")
            }
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<AudioError>() {
        return match error {
            AudioError::NoDevice { .. } => {
                Some("`asr listen --list-devices` names those there are")
            }
            AudioError::UnknownFormat { .. } => Some(
                "raw samples need `--stdin-format s16le --stdin-rate 16000` and come from standard input",
            ),
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<HubError>() {
        return match error {
            HubError::Offline { .. } => {
                Some("leave out `--offline`, unset HF_HUB_OFFLINE, or give the path of a folder")
            }
            HubError::Refused { .. } => {
                Some("accept its terms on its page, then set HF_TOKEN to a token of yours")
            }
            HubError::NotFound { .. } => Some("give a path to use a folder of this machine"),
            HubError::Several { .. } => Some("name one of them: ORG/NAME/FILE"),
            HubError::Connection { .. } => {
                Some("HF_ENDPOINT names another copy of the Hub, HTTPS_PROXY a proxy")
            }
            _ => None,
        };
    }
    if let Some(MlSuperbError::Layout { .. }) = error.downcast_ref::<MlSuperbError>() {
        return Some("unpack the release first; its folders are DATASET/LANGUAGE/wav");
    }
    if let Some(error) = error.downcast_ref::<PretrainError>() {
        return pretrain_hint(error);
    }
    match error.downcast_ref::<DataError>() {
        Some(DataError::NoLanguage { .. }) => {
            return Some("name it with `--language LANG`, or the folder after the language");
        }
        Some(DataError::NoFolder) => return Some("name one with `--clips FOLDER`"),
        _ => {}
    }
    if error.is::<RecipeError>() {
        return Some("models/default.toml is a complete recipe to start from");
    }
    if error.is::<ModelFolderError>() {
        return Some("a model is a folder with config.json, vocab.json and model.safetensors");
    }
    if error.is::<ScoreError>() {
        return Some("lines are `utt_id [lang] text`; `asr score --help` shows an example");
    }
    None
}

fn pretrain_hint(error: &PretrainError) -> Option<&'static str> {
    match error {
        PretrainError::Stage { source, .. } => pretrain_hint(source),
        PretrainError::WithoutFaiss => Some(
            "needs cmake, a C++ compiler and BLAS: `apt-get install cmake g++ libopenblas-dev`",
        ),
        PretrainError::Recipe(_) | PretrainError::Setting { .. } => {
            Some("models/mr-hubert-tiny.toml is a complete recipe to start from")
        }
        PretrainError::OtherRecipe { .. } => Some("`--set output=FOLDER` begins a new run"),
        _ => None,
    }
}

/// Tells of an error that ends the program; a reader that went away is none.
pub(super) fn report(error: &(dyn Error + Send + Sync + 'static)) -> ExitCode {
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", chain(error));
    if let Some(hint) = hint(error) {
        eprintln!("\nhint: {hint}");
    }
    let misuse = error.downcast_ref::<CliError>().is_some_and(|e| {
        matches!(
            e,
            CliError::StdinTwice
                | CliError::Layers { .. }
                | CliError::OneRecording { .. }
                | CliError::NothingToResume
                | CliError::SeveralPrecisions
                | CliError::LanguagesOfInputs { .. }
        )
    });
    ExitCode::from(if misuse { 2 } else { 1 })
}
