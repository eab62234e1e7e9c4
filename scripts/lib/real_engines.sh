# Sourced by the set-ups of real engines: the model that they share.
# shellcheck shell=bash disable=SC2154 # names of common.sh

real_engines=$cache/real-engines

# make_llama PYTHON: one tiny Llama for every engine, made in a folder beside and
# moved, so that a half-written model is never served.
make_llama() {
    local folder=$real_engines/model stamp=$real_engines/model/.complete wanted
    wanted=$(sha256sum <"$lib/make_tiny_llama.py")
    (
        lock_folder "$folder"
        if [[ -f $stamp && $(<"$stamp") == "$wanted" ]]; then exit; fi
        say "making a model of random weights in $folder"
        rm -rf "$folder.new"
        "$1" -I "$lib/make_tiny_llama.py" "$folder.new"
        place "$folder.new/.complete" 644 <<<"$wanted"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    )
}
