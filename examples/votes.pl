#!/usr/bin/env perl
# A poll, in Perl: proof that a worker needs nothing but docs/workers.md. No library, only modules that Perl comes with.
#
#     quickio --listen 127.0.0.1:8080 --app examples/votes.pl
#
# For a client:
#
#     /votes/cast with "yes" or "no"    votes, once for each client; answered 403 the second time
#     /votes/tally                      the answer has the counts
#     /qio/on with "/votes/changed"     is told them whenever somebody votes
#
# The votes are in this worker's memory: they end with it, and several instances would each count their own.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Handle;
use IO::Select;
use JSON::PP;

use constant VERSION => 1;
use constant { EVENT => 1, GONE => 7 };                   # frames from the server
use constant { ANSWER => 1, BROADCAST => 2, WATCH => 7 }; # frames to it
use constant { HEAD_BYTES => 40, LENGTH_BYTES => 4, HAS_MESSAGE => 2 };
use constant READ_BYTES => 64 * 1024;
# The head of a frame: length, type, flags, code, request, number, shard, slot, generation, length of the text, time.
use constant HEAD => 'NCCnNNNNNNQ>';

my $json = JSON::PP->new->canonical;
my @events = (
    { path => '/votes/cast',    handler => \&cast },
    { path => '/votes/tally',   handler => \&tally },
    { path => '/votes/changed', handler => undef },
);

my ($yes, $no) = (0, 0);
my %voted; # clients that have, by name, until they have gone

$SIG{INT}  = 'IGNORE'; # a Ctrl-C is for the server, which then ends its workers in order
$SIG{PIPE} = 'IGNORE'; # of a server that has gone the control socket tells

# A socket with what has come but is not complete, and what is to go but did not go yet.
sub connection {
    my ($fd, $take) = @_;
    open(my $socket, '+<&=', $fd) or die "descriptor $fd: $!\n";
    binmode $socket;
    $socket->blocking(0);
    return { socket => $socket, in => '', out => '', is_open => 1, take => $take };
}

my $greeted = 0;
my @links;
my $control = connection($ENV{QUICKIO_WORKER} // die("quickio starts this: --app $0\n"), \&take_lines);

serve() while $control->{is_open} && !is_done();
exit 0;

# All links have ended, and nothing is left to send: the server has asked the worker to stop.
sub is_done {
    return @links && !grep { $_->{is_open} || $_->{out} ne '' } @links;
}

# Waits until something can be read or written, and does it.
sub serve {
    my @all     = ($control, @links);
    my %of      = map { fileno($_->{socket}) => $_ } @all;
    my $readers = IO::Select->new(map { $_->{socket} } grep { $_->{is_open} } @all);
    my $writers = IO::Select->new(map { $_->{socket} } grep { $_->{out} ne '' } @all);
    my ($readable, $writable) = IO::Select::select($readers, $writers, undef) or return;
    fill($of{ fileno $_ }) for @$readable;
    flush($of{ fileno $_ }) for @$writable;
    return;
}

sub fill {
    my ($connection) = @_;
    my $bytes = sysread($connection->{socket}, $connection->{in}, READ_BYTES, length $connection->{in});
    if (!defined $bytes) {
        $connection->{is_open} = 0 unless $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
    } elsif ($bytes == 0) {
        $connection->{is_open} = 0; # the other half may still be written to
    } else {
        $connection->{take}->($connection);
    }
    return;
}

sub flush {
    my ($connection) = @_;
    my $bytes = syswrite($connection->{socket}, $connection->{out});
    if (defined $bytes) {
        substr($connection->{out}, 0, $bytes, '');
    } elsif (!$!{EAGAIN} && !$!{EWOULDBLOCK} && !$!{EINTR}) {
        exit 1; # nobody is there
    }
    return;
}

# ---- The control socket: JSON, line by line ----

sub take_lines {
    my ($connection) = @_;
    while ($connection->{in} =~ s/\A([^\n]*)\n//) {
        my $line = $json->decode($1);
        if    (!$greeted)             { hello($line->{hello} // die "the first line is no hello\n") }
        elsif (defined $line->{ping}) { say_line({ pong => $line->{ping} }) }
    }
    return;
}

sub say_line {
    my ($object) = @_;
    $control->{out} .= $json->encode($object) . "\n";
    flush($control);
    return;
}

sub hello {
    my ($hello) = @_;
    $greeted = 1;
    if ($hello->{version} != VERSION) {
        say_line({ failed => "the server speaks version $hello->{version}, and this worker " . VERSION });
        exit 1;
    }
    my @specs = map { { path => $_->{path}, handler => $_->{handler} ? JSON::PP::true : JSON::PP::false } } @events;
    say_line({ ready => { version => VERSION, events => \@specs, files => [ $hello->{script} ] } });
    if ($hello->{test}) {
        say_line({ tested => JSON::PP::true });
        exit 0;
    }
    @links = map { connection($_, \&take_frames) } @{ $hello->{links} };
    return;
}

# ---- The links: frames ----

sub take_frames {
    my ($link) = @_;
    my ($at, $end) = (0, length $link->{in});
    while ($end - $at >= HEAD_BYTES) {
        my ($length, $type, $flags, $code, $request, $number, $shard, $slot, $generation, $text_bytes) =
          unpack HEAD, substr($link->{in}, $at, HEAD_BYTES);
        my $bytes = LENGTH_BYTES + $length;
        die "a frame of $bytes bytes\n" if $bytes < HEAD_BYTES + $text_bytes;
        last if $end - $at < $bytes;
        my $client = [ $shard, $slot, $generation ];
        if ($type == EVENT) {
            my $data_at = HEAD_BYTES + $text_bytes;
            my $data    = substr($link->{in}, $at + $data_at, $bytes - $data_at);
            my $handler = $events[$number] && $events[$number]{handler} or die "there is no event $number\n";
            $handler->($link, $request, $client, $data);
        } elsif ($type == GONE) {
            delete $voted{"@$client"};
        }
        $at += $bytes; # what else there is was not asked for
    }
    substr($link->{in}, 0, $at, '');
    flush($link) if $link->{out} ne '';
    return;
}

# Queues a frame. The text and the data are bytes.
sub put {
    my ($link, $type, %frame) = @_;
    my ($text, $data) = ($frame{text} // '', $frame{data} // '');
    $link->{out} .= pack(
        HEAD,
        HEAD_BYTES - LENGTH_BYTES + length($text) + length($data),
        $type,
        $frame{flags}   // 0,
        $frame{code}    // 0,
        $frame{request} // 0,
        0,
        @{ $frame{client} // [ 0, 0, 0 ] },
        length $text,
        0
    ) . $text . $data;
    return;
}

sub answer {
    my ($link, $request, $data) = @_;
    return put($link, ANSWER, request => $request, code => 200, data => $data);
}

sub refuse {
    my ($link, $request, $code, $message) = @_;
    return put($link, ANSWER, request => $request, code => $code, flags => HAS_MESSAGE, text => $message);
}

# ---- The poll ----

sub cast {
    my ($link, $request, $client, $data) = @_;
    my $vote = eval { JSON::PP->new->allow_nonref->decode($data) } // '';
    return refuse($link, $request, 400, '"yes" or "no" is needed') unless $vote eq 'yes' || $vote eq 'no';
    return refuse($link, $request, 403, 'one vote each') if $voted{"@$client"};
    $voted{"@$client"} = 1;
    put($link, WATCH, client => $client);
    $vote eq 'yes' ? $yes++ : $no++;
    # Always over the same link, so that the counts come in order, wherever the votes came from.
    put($links[0], BROADCAST, text => '/votes/changed', data => counts());
    flush($links[0]);
    return answer($link, $request, counts());
}

sub tally {
    my ($link, $request) = @_;
    return answer($link, $request, counts());
}

sub counts {
    return qq({"yes":$yes,"no":$no});
}
