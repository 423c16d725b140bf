# complete.zsh FOLDER LINE...: prints each command line as an interactive zsh completes it, with the functions in the folder.
#
# Completions work only in the line editor: a second zsh runs in a pseudo-terminal. A key prints its line.
zmodload zsh/zpty
folder=$1
shift

zpty shell zsh -f -i
zpty -w shell "PS1= PS2= RPS1=; fpath=(${(q)folder} \$fpath); autoload -Uz compinit; compinit -u -D"
zpty -w shell "show() { print -r -- \"<\$BUFFER>\" > ${(q)folder}/shown; BUFFER=; }; zle -N show; bindkey '^X' show"
zpty -w shell "print > ${(q)folder}/ready"

# Reads what the shell prints until the file has a line.
await() {
    local ignored
    repeat 1200; do
        while zpty -r -t shell ignored; do :; done
        [[ -s $1 ]] && return
        sleep 0.05
    done
    print -u2 "zsh did not write $1"
    exit 1
}

await $folder/ready
for line; do
    rm -f $folder/shown
    zpty -w -n shell "$line"$'\t\x18'
    await $folder/shown
    shown=$(<$folder/shown)
    print -r -- ${${shown#<}%>}
done
zpty -d shell
