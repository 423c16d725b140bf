{ A poll in Free Pascal. It shows that quickio.h can be used without C.

    fpc -Cg -o./votes.so examples/votes.pas
    quickio --listen 127.0.0.1:8080 --app ./votes.so

  For a client:

    /votes/cast with "yes" or "no"    votes, once for each client; answered 403 the second time
    /votes/tally                      returns the counts
    /qio/on with "/votes/changed"     subscribes to the counts, which are sent after each vote

  Handlers run on several threads at once. Shared counters use atomic operations. Handlers use no memory that Pascal
  manages (strings, dynamic arrays), because its runtime does not know these threads. }
library votes;

{$mode objfpc}
{$packrecords c}

uses
  ctypes;

const
  Magic = $314f4951;
  AbiVersion = 1;
  Ok = 0;

type
  TStr = record
    Ptr: pchar;
    Len: csize_t;
  end;
  PStr = ^TStr;

  { A handle of a context, a registrar or a server: a number. }
  THandle = record
    Id: cuint64;
  end;

  TClient = record
    Shard, Slot, Generation: cuint32;
  end;

  TEvent = record
    Client: TClient;
    WantsAnswer: cuint32;
    Path, Extra, Data: TStr;
  end;
  PEvent = ^TEvent;

  TFree = procedure(User: pointer); cdecl;
  THandler = procedure(Cx: THandle; Event: PEvent; User: pointer); cdecl;

  TEventSpec = record
    Size, Flags: cuint32;
    Path: TStr;
    Handler: THandler;
    OnHook, OffHook: pointer;
    User: pointer;
    Free: TFree;
  end;
  PEventSpec = ^TEventSpec;

  { The part of qio_api that this application needs. Functions that it does not call are pointers. }
  TApi = record
    Abi, Size: cuint32;
    ErrorText, Fail, Log, LogEnabled, Setting, SettingNth, RegistrarShard: pointer;
    RegisterEvent: function(Registrar: THandle; Spec: PEventSpec): cint32; cdecl;
    Every, Shard, NowMs: pointer;
    Answer: function(Cx: THandle; Data: TStr): cint32; cdecl;
    AnswerError: function(Cx: THandle; Code: cuint32; Message: TStr): cint32; cdecl;
    AnswerWith, AnswerNever, Later, LaterDecision: pointer;
    Broadcast: function(Cx: THandle; Path, Data: TStr): cint32; cdecl;
    Send, Close, Move, After: pointer;
    ClientData: function(Cx: THandle; Client: TClient): pointer; cdecl;
    SetClientData: function(Cx: THandle; Client: TClient; Data: pointer; Free: TFree): cint32; cdecl;
  end;
  PApi = ^TApi;

  TAppInfo = record
    Magic, Abi, Size, Reserved: cuint32;
    Name: pchar;
    Init: function(Api: PApi; Server: THandle): cint32; cdecl;
    RegisterEvents: function(Registrar: THandle): cint32; cdecl;
    Start: function: cint32; cdecl;
    Stop: procedure; cdecl;
    SelfTest: function: cint32; cdecl;
  end;
  PAppInfo = ^TAppInfo;

var
  Api: PApi;
  Yes, No: longint;
  { The data of each client that has voted. Only its presence matters. }
  Voted: byte;

function Text(Ptr: pchar; Len: csize_t): TStr;
begin
  Text.Ptr := Ptr;
  Text.Len := Len;
end;

{ The result refers to the caller's shortstring, and is valid until the caller returns. }
function TextOf(const S: shortstring): TStr;
begin
  TextOf := Text(@S[1], length(S));
end;

procedure Tally(out Json: shortstring);
var
  YesText, NoText: shortstring;
begin
  str(InterlockedExchangeAdd(Yes, 0), YesText);
  str(InterlockedExchangeAdd(No, 0), NoText);
  Json := '{"yes":' + YesText + ',"no":' + NoText + '}';
end;

function IsText(const Data: TStr; const S: shortstring): boolean;
begin
  IsText := (Data.Len = csize_t(length(S))) and (CompareByte(Data.Ptr^, S[1], length(S)) = 0);
end;

procedure HandleCast(Cx: THandle; Event: PEvent; User: pointer); cdecl;
var
  Json, Path, Message: shortstring;
  IsYes: boolean;
begin
  IsYes := IsText(Event^.Data, '"yes"');
  if not IsYes and not IsText(Event^.Data, '"no"') then
  begin
    Message := '"yes" or "no" is needed';
    Api^.AnswerError(Cx, 400, TextOf(Message));
    exit;
  end;
  if Api^.ClientData(Cx, Event^.Client) <> nil then
  begin
    Message := 'one vote each';
    Api^.AnswerError(Cx, 403, TextOf(Message));
    exit;
  end;
  Api^.SetClientData(Cx, Event^.Client, @Voted, nil);
  if IsYes then
    InterlockedIncrement(Yes)
  else
    InterlockedIncrement(No);
  Tally(Json);
  Path := '/votes/changed';
  Api^.Broadcast(Cx, TextOf(Path), TextOf(Json));
  Api^.Answer(Cx, TextOf(Json));
end;

procedure HandleTally(Cx: THandle; Event: PEvent; User: pointer); cdecl;
var
  Json: shortstring;
begin
  Tally(Json);
  Api^.Answer(Cx, TextOf(Json));
end;

function Init(TheApi: PApi; Server: THandle): cint32; cdecl;
begin
  Api := TheApi;
  Init := Ok;
end;

function Add(Registrar: THandle; Path: shortstring; Handler: THandler): cint32;
var
  Spec: TEventSpec;
begin
  FillChar(Spec, sizeof(Spec), 0);
  Spec.Size := sizeof(Spec);
  Spec.Path := TextOf(Path);
  Spec.Handler := Handler;
  Add := Api^.RegisterEvent(Registrar, @Spec);
end;

function RegisterEvents(Registrar: THandle): cint32; cdecl;
begin
  { If an event cannot be registered, the server does not start, even if this function returns Ok. }
  Add(Registrar, '/votes/cast', @HandleCast);
  Add(Registrar, '/votes/tally', @HandleTally);
  RegisterEvents := Add(Registrar, '/votes/changed', nil);
end;

const
  Info: TAppInfo = (
    Magic: Magic; Abi: AbiVersion; Size: sizeof(TAppInfo); Reserved: 0;
    Name: 'votes';
    Init: @Init; RegisterEvents: @RegisterEvents; Start: nil; Stop: nil; SelfTest: nil
  );

function AppGet: PAppInfo; cdecl;
begin
  AppGet := @Info;
end;

exports
  AppGet name 'qio_app_get';

end.
