package com.example.client;

import com.google.protobuf.ByteString;
import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.BlockingClientCall;
import java.io.File;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;
import strongroom.auth.v1.AppRoleServiceGrpc;
import strongroom.auth.v1.Approle.LoginAppRoleRequest;
import strongroom.kv.v1.KvV2ServiceGrpc;
import strongroom.kv.v1.Kv2.ReadSecretRequest;
import strongroom.kv.v1.Kv2.WriteSecretRequest;
import strongroom.transit.v1.Stream.DecryptStreamItem;
import strongroom.transit.v1.Stream.DecryptStreamRequest;
import strongroom.transit.v1.Stream.DecryptStreamResponse;
import strongroom.transit.v1.Stream.EncryptStreamItem;
import strongroom.transit.v1.Stream.EncryptStreamRequest;
import strongroom.transit.v1.Stream.EncryptStreamResponse;
import strongroom.transit.v1.TransitStreamServiceGrpc;

/**
 * Logs in with AppRole, reads a secret, is refused where its policies end, and has items encrypted
 * and decrypted over streams: what a program does with Strongroom, with nothing but packages
 * generated from the contracts.
 */
public final class Main {
  private static final int ITEMS = 10_000;
  private static final int BATCH = 1_000;

  private Main() {}

  public static void main(String[] arguments) throws Exception {
    var tls =
        TlsChannelCredentials.newBuilder()
            .trustManager(new File(System.getenv("STRONGROOM_CACERT")))
            .build();
    var channel = Grpc.newChannelBuilder(System.getenv("STRONGROOM_GRPC_ADDR"), tls).build();
    try {
      run(channel);
    } finally {
      channel.shutdownNow();
    }
  }

  private static void run(ManagedChannel channel) throws Exception {
    var login =
        AppRoleServiceGrpc.newBlockingV2Stub(channel)
            .withDeadlineAfter(1, TimeUnit.MINUTES)
            .loginAppRole(
                LoginAppRoleRequest.newBuilder()
                    .setMount("auth/approle/")
                    .setRoleId(System.getenv("ROLE_ID"))
                    .setSecretId(System.getenv("SECRET_ID"))
                    .build());
    var token = new Token(login.getAuth().getClientToken());

    var secrets =
        KvV2ServiceGrpc.newBlockingV2Stub(channel)
            .withCallCredentials(token)
            .withDeadlineAfter(1, TimeUnit.MINUTES);
    var app = ReadSecretRequest.newBuilder().setMount("secret").setPath("app").build();
    System.out.println("secret: " + secrets.readSecret(app).getData().toStringUtf8());
    var change =
        WriteSecretRequest.newBuilder()
            .setMount("secret")
            .setPath("app")
            .setData(ByteString.copyFromUtf8("{}"))
            .build();
    try {
      secrets.writeSecret(change);
      throw new IllegalStateException("a write that no policy allows was done");
    } catch (StatusException refusal) {
      System.out.println("write: " + refusal.getStatus().getCode());
    }

    var streams =
        TransitStreamServiceGrpc.newBlockingV2Stub(channel)
            .withCallCredentials(token)
            .withDeadlineAfter(1, TimeUnit.MINUTES);
    var ciphertexts = encrypt(streams.encryptStream());
    decrypt(streams.decryptStream(), ciphertexts);
    System.out.println("items: " + ciphertexts.size());
  }

  private static ByteString plaintext(int number) {
    return ByteString.copyFromUtf8("item " + number);
  }

  /** Sends batches while their results come in. */
  private static List<String> encrypt(
      BlockingClientCall<EncryptStreamRequest, EncryptStreamResponse> stream) throws Exception {
    var sending =
        inBackground(
            () -> {
              for (int first = 0; first < ITEMS; first += BATCH) {
                var request = EncryptStreamRequest.newBuilder().setMount("transit").setName("app");
                for (int number = first; number < first + BATCH; number++) {
                  request.addItems(EncryptStreamItem.newBuilder().setPlaintext(plaintext(number)));
                }
                stream.write(request.build());
              }
              stream.halfClose();
            });
    var ciphertexts = new ArrayList<String>();
    for (var response = stream.read(); response != null; response = stream.read()) {
      for (var item : response.getItemsList()) {
        check(item.getError().isEmpty(), item.getError());
        ciphertexts.add(item.getCiphertext());
      }
    }
    sending.join();
    check(ciphertexts.size() == ITEMS, "a result is missing");
    return ciphertexts;
  }

  /** Opens what encrypt made, and compares. */
  private static void decrypt(
      BlockingClientCall<DecryptStreamRequest, DecryptStreamResponse> stream,
      List<String> ciphertexts)
      throws Exception {
    var sending =
        inBackground(
            () -> {
              for (int first = 0; first < ITEMS; first += BATCH) {
                var request = DecryptStreamRequest.newBuilder().setMount("transit").setName("app");
                for (var ciphertext : ciphertexts.subList(first, first + BATCH)) {
                  request.addItems(DecryptStreamItem.newBuilder().setCiphertext(ciphertext));
                }
                stream.write(request.build());
              }
              stream.halfClose();
            });
    int number = 0;
    for (var response = stream.read(); response != null; response = stream.read()) {
      for (var item : response.getItemsList()) {
        check(item.getError().isEmpty(), item.getError());
        check(item.getPlaintext().equals(plaintext(number)), "a plaintext is another one");
        number++;
      }
    }
    sending.join();
    check(number == ITEMS, "a plaintext is missing");
  }

  private interface Sender {
    void send() throws Exception;
  }

  private static Thread inBackground(Sender sender) {
    var thread =
        new Thread(
            () -> {
              try {
                sender.send();
              } catch (Exception stopped) {
                // The reason is what reading says.
              }
            });
    thread.start();
    return thread;
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }

  /** Goes with each call. */
  private static final class Token extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String text;

    Token(String text) {
      this.text = text;
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      if (call.getSecurityLevel() != io.grpc.SecurityLevel.PRIVACY_AND_INTEGRITY) {
        applier.fail(Status.UNAUTHENTICATED.withDescription("tokens go over TLS alone"));
        return;
      }
      var headers = new Metadata();
      headers.put(AUTHORIZATION, "Bearer " + text);
      applier.apply(headers);
    }
  }
}
