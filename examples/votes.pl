#!/usr/bin/env perl
# A poll in Perl. It shows that docs/workers.md is enough to write a worker: it uses no library, only modules of Perl.
#
#     quickio --listen 127.0.0.1:8080 --app examples/votes.pl
#
# For a client:
#
#     /votes/cast with "yes" or "no"    votes, once for each client; answered 403 the second time
#     /votes/tally                      returns the counts
#     /qio/on with "/votes/changed"     subscribes to the counts, which are sent after each vote
#
# The votes are in this worker's memory: they are lost when it ends, and several instances would count separately.
use strict;
use warnings;
use Errno qw(EAGAIN EINTR EWOULDBLOCK);
use IO::Handle;
use IO::Select;
use JSON::PP;

use constant VERSION => 1;
use constant { EVENT => 1, GONE => 7 };                   # types of frames from the server
use constant { ANSWER => 1, BROADCAST => 2, WATCH => 7 }; # types of frames to the server
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
my %voted; # connected clients that have voted, by name

$SIG{INT}  = 'IGNORE'; # Ctrl-C is for the server, which then ends its workers in order
$SIG{PIPE} = 'IGNORE'; # the end of the control socket shows that the server has ended

# Returns a connection: a socket with its buffers for incomplete input and unsent output. `on_input` handles the input.
sub connection {
    my ($fd, $on_input) = @_;
    open(my $socket, '+<&=', $fd) or die "descriptor $fd: $!\n";
    binmode $socket;
    $socket->blocking(0);
    return { socket => $socket, in => '', out => '', is_open => 1, on_input => $on_input };
}

my $has_hello = 0;
my @links;
my $control_fd = $ENV{QUICKIO_WORKER} // die("this program is started by the server: quickio --app $0\n");
my $control    = connection($control_fd, \&handle_lines);

serve() while $control->{is_open} && !is_done();
exit 0;

# Returns whether the worker is done: the server has ended all links, and all output is sent.
sub is_done {
    return @links && !grep { $_->{is_open} || $_->{out} ne '' } @links;
}

# Waits until a socket can be read or written, and reads or writes.
sub serve {
    my @all     = ($control, @links);
    my %of      = map { fileno($_->{socket}) => $_ } @all;
    my $readers = IO::Select->new(map { $_->{socket} } grep { $_->{is_open} } @all);
    my $writers = IO::Select->new(map { $_->{socket} } grep { $_->{out} ne '' } @all);
    my ($readable, $writable) = IO::Select::select($readers, $writers, undef) or return;
    read_from($of{ fileno $_ }) for @$readable;
    flush($of{ fileno $_ }) for @$writable;
    return;
}

# Reads from a connection.
sub read_from {
    my ($connection) = @_;
    my $bytes = sysread($connection->{socket}, $connection->{in}, READ_BYTES, length $connection->{in});
    if (!defined $bytes) {
        $connection->{is_open} = 0 unless $!{EAGAIN} || $!{EWOULDBLOCK} || $!{EINTR};
    } elsif ($bytes == 0) {
        $connection->{is_open} = 0; # the other direction may still be open
    } else {
        $connection->{on_input}->($connection);
    }
    return;
}

# Writes the output of a connection, as far as possible.
sub flush {
    my ($connection) = @_;
    my $bytes = syswrite($connection->{socket}, $connection->{out});
    if (defined $bytes) {
        substr($connection->{out}, 0, $bytes, '');
    } elsif (!$!{EAGAIN} && !$!{EWOULDBLOCK} && !$!{EINTR}) {
        exit 1; # the server has closed the connection
    }
    return;
}

# ---- The control socket: JSON, line by line ----

sub handle_lines {
    my ($connection) = @_;
    while ($connection->{in} =~ s/\A([^\n]*)\n//) {
        my $line = $json->decode($1);
        if    (!$has_hello)           { hello($line->{hello} // die "protocol error: the first line is not a hello\n") }
        elsif (defined $line->{ping}) { send_line({ pong => $line->{ping} }) }
    }
    return;
}

sub send_line {
    my ($object) = @_;
    $control->{out} .= $json->encode($object) . "\n";
    flush($control);
    return;
}

sub hello {
    my ($hello) = @_;
    $has_hello = 1;
    if ($hello->{version} != VERSION) {
        my $theirs = "the server uses version $hello->{version} of the worker protocol";
        send_line({ failed => "$theirs, this worker version " . VERSION });
        exit 1;
    }
    my @specs = map { { path => $_->{path}, handler => $_->{handler} ? JSON::PP::true : JSON::PP::false } } @events;
    send_line({ ready => { version => VERSION, events => \@specs, files => [ $hello->{script} ] } });
    if ($hello->{test}) {
        send_line({ tested => JSON::PP::true });
        exit 0;
    }
    @links = map { connection($_, \&handle_frames) } @{ $hello->{links} };
    return;
}

# ---- The links: frames ----

sub handle_frames {
    my ($link) = @_;
    my ($at, $end) = (0, length $link->{in});
    while ($end - $at >= HEAD_BYTES) {
        my ($length, $type, $flags, $code, $request, $number, $shard, $slot, $generation, $text_bytes) =
          unpack HEAD, substr($link->{in}, $at, HEAD_BYTES);
        my $bytes = LENGTH_BYTES + $length;
        die "protocol error: invalid frame of $bytes bytes\n" if $bytes < HEAD_BYTES + $text_bytes;
        last if $end - $at < $bytes;
        my $client = [ $shard, $slot, $generation ];
        if ($type == EVENT) {
            my $data_at = HEAD_BYTES + $text_bytes;
            my $data    = substr($link->{in}, $at + $data_at, $bytes - $data_at);
            my $handler = $events[$number] && $events[$number]{handler}
              or die "protocol error: unknown event number $number\n";
            $handler->($link, $request, $client, $data);
        } elsif ($type == GONE) {
            delete $voted{"@$client"};
        }
        $at += $bytes; # frames of other types are not expected
    }
    substr($link->{in}, 0, $at, '');
    flush($link) if $link->{out} ne '';
    return;
}

# Queues a frame. The text and the data are bytes, not characters.
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
    # Always on the same link, so that the counts arrive in order, whichever shards the votes came from.
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
