// Logs in with AppRole, reads a secret, is refused where its policies end, and has items encrypted and decrypted over
// streams: what a program does with Strongroom, with nothing but packages generated from the contracts.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	auth "example.com/strongroom-client/gen/strongroom/auth/v1"
	kv "example.com/strongroom-client/gen/strongroom/kv/v1"
	transit "example.com/strongroom-client/gen/strongroom/transit/v1"
)

const (
	items = 10_000
	batch = 1_000
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := run(ctx); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	tls, err := credentials.NewClientTLSFromFile(os.Getenv("STRONGROOM_CACERT"), "")
	if err != nil {
		return err
	}
	connection, err := grpc.NewClient(os.Getenv("STRONGROOM_GRPC_ADDR"), grpc.WithTransportCredentials(tls))
	if err != nil {
		return err
	}
	defer connection.Close()

	login, err := auth.NewAppRoleServiceClient(connection).LoginAppRole(ctx, &auth.LoginAppRoleRequest{
		Mount:    "auth/approle/",
		RoleId:   os.Getenv("ROLE_ID"),
		SecretId: os.Getenv("SECRET_ID"),
	})
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+login.Auth.ClientToken)

	secrets := kv.NewKvV2ServiceClient(connection)
	secret, err := secrets.ReadSecret(ctx, &kv.ReadSecretRequest{Mount: "secret", Path: "app"})
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	fmt.Printf("secret: %s\n", secret.Data)
	_, err = secrets.WriteSecret(ctx, &kv.WriteSecretRequest{Mount: "secret", Path: "app", Data: []byte(`{}`)})
	if status.Code(err) != codes.PermissionDenied {
		return fmt.Errorf("a write that no policy allows: %w", err)
	}
	fmt.Println("write: PERMISSION_DENIED")

	streams := transit.NewTransitStreamServiceClient(connection)
	ciphertexts, err := encrypt(ctx, streams)
	if err != nil {
		return fmt.Errorf("encrypt: %w", err)
	}
	if err := decrypt(ctx, streams, ciphertexts); err != nil {
		return fmt.Errorf("decrypt: %w", err)
	}
	fmt.Printf("items: %d\n", len(ciphertexts))
	return nil
}

func plaintext(number int) []byte { return fmt.Appendf(nil, "item %d", number) }

// encrypt sends batches while their results come in.
func encrypt(ctx context.Context, streams transit.TransitStreamServiceClient) ([]string, error) {
	stream, err := streams.EncryptStream(ctx)
	if err != nil {
		return nil, err
	}
	go func() {
		for first := 0; first < items; first += batch {
			request := &transit.EncryptStreamRequest{Mount: "transit", Name: "app"}
			for number := first; number < first+batch; number++ {
				item := &transit.EncryptStreamItem{Plaintext: plaintext(number)}
				request.Items = append(request.Items, item)
			}
			if stream.Send(request) != nil {
				return // the reason is what Recv says
			}
		}
		stream.CloseSend()
	}()
	var ciphertexts []string
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return ciphertexts, nil
		}
		if err != nil {
			return nil, err
		}
		for _, item := range response.Items {
			if item.Error != "" {
				return nil, errors.New(item.Error)
			}
			ciphertexts = append(ciphertexts, item.Ciphertext)
		}
	}
}

// decrypt opens what encrypt made, and compares.
func decrypt(ctx context.Context, streams transit.TransitStreamServiceClient, ciphertexts []string) error {
	stream, err := streams.DecryptStream(ctx)
	if err != nil {
		return err
	}
	go func() {
		for first := 0; first < len(ciphertexts); first += batch {
			request := &transit.DecryptStreamRequest{Mount: "transit", Name: "app"}
			for _, ciphertext := range ciphertexts[first:min(first+batch, len(ciphertexts))] {
				item := &transit.DecryptStreamItem{Ciphertext: ciphertext}
				request.Items = append(request.Items, item)
			}
			if stream.Send(request) != nil {
				return
			}
		}
		stream.CloseSend()
	}()
	number := 0
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		for _, item := range response.Items {
			if item.Error != "" || !bytes.Equal(item.Plaintext, plaintext(number)) {
				return fmt.Errorf("item %d: %s", number, item.Error)
			}
			number++
		}
	}
	if number != len(ciphertexts) {
		return fmt.Errorf("%d results for %d items", number, len(ciphertexts))
	}
	return nil
}
